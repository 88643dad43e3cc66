//! What the attribute leaves behind: the function as it was, and a type that the SDK can call it through.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Meta, ReturnType, Type};

use crate::arguments::{Arguments, name_mistake};

pub(crate) fn expand(arguments: Arguments, function: &ItemFn) -> TokenStream {
    match implement(arguments, function) {
        Ok(implementation) => quote! { #function #implementation },
        // The function stays, so that the one mistake does not bring a dozen "not found" with it.
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #function #error }
        }
    }
}

fn implement(arguments: Arguments, function: &ItemFn) -> syn::Result<TokenStream> {
    let shape = Shape::read(function)?;
    let name = name(arguments.name, function)?;
    let version = arguments
        .version
        .map_or_else(|| quote!(::core::env!("CARGO_PKG_VERSION")), |version| quote!(#version));
    let summary = summary(arguments.summary, &function.attrs);
    let grants = arguments.grants.iter().map(|grant| {
        let (kind, value, why) = (grant.kind.to_string(), &grant.value, &grant.why);
        quote! { (#kind, #value, #why) }
    });

    let Shape { input, context, output } = shape;
    let called = &function.sig.ident;
    let visibility = &function.vis;
    let call = match context {
        ContextParameter::None => quote! { { let _ = context; #called(input) } },
        ContextParameter::Owned => quote! { #called(input, context) },
        ContextParameter::Borrowed => quote! { #called(input, &context) },
    };
    let input_check = quote_spanned! {input.span()=>
        const _: () = { const fn check<T: ::reipaz_sdk::__private::StepInput>() {} check::<#input>() };
    };
    let step = format_ident!("ReipazStep");
    Ok(quote! {
        #[doc(hidden)]
        #[allow(unreachable_pub, private_interfaces)]
        #visibility struct #step;

        #[doc(hidden)]
        #[allow(unsafe_code, unreachable_pub)]
        const _: () = {
            #input_check

            impl ::reipaz_sdk::__private::Step for #step {
                const NAME: &'static str = #name;
                const VERSION: &'static str = #version;
                const SUMMARY: &'static str = #summary;
                const GRANTS: &'static [(&'static str, &'static str, &'static str)] = &[#(#grants),*];
                type Input = #input;
                type Return = #output;
                fn call(input: Self::Input, context: ::reipaz_sdk::Context) -> Self::Return {
                    #call
                }
            }

            ::reipaz_sdk::__export_step!(#step);
        };
    })
}

enum ContextParameter {
    None,
    Owned,
    Borrowed,
}

/// The types in the function's signature.
struct Shape<'a> {
    input: &'a Type,
    context: ContextParameter,
    output: &'a Type,
}

impl<'a> Shape<'a> {
    fn read(function: &'a ItemFn) -> syn::Result<Self> {
        let signature = &function.sig;
        if let Some(asyncness) = &signature.asyncness {
            return Err(syn::Error::new(
                asyncness.span(),
                "a step is a plain `fn`: each attempt has an instance to itself and may wait; for several requests at once \
                 there is `reipaz_sdk::http::send_all`",
            ));
        }
        if !signature.generics.params.is_empty() {
            return Err(syn::Error::new(
                signature.generics.span(),
                "a step has no generic parameters: its types become its schemas",
            ));
        }
        let mut parameters = signature.inputs.iter().map(|parameter| match parameter {
            FnArg::Typed(typed) => Ok(&*typed.ty),
            FnArg::Receiver(receiver) => {
                Err(syn::Error::new(receiver.span(), "a step is a free function, without `self`"))
            }
        });
        const SHAPE: &str = "a step takes its input and, if it wants, a context: \
                             `fn step(input: Input, context: Context) -> Result<Output, StepError>`";
        let Some(input) = parameters.next().transpose()? else {
            return Err(syn::Error::new(
                signature.paren_token.span.join(),
                format!("{SHAPE}; an input of nothing is `_: ()`"),
            ));
        };
        let context = match parameters.next().transpose()? {
            None => ContextParameter::None,
            Some(Type::Reference(_)) => ContextParameter::Borrowed,
            Some(_) => ContextParameter::Owned,
        };
        if let Some(third) = parameters.next().transpose()? {
            return Err(syn::Error::new(third.span(), SHAPE));
        }
        if let Type::Reference(reference) = input {
            return Err(syn::Error::new(reference.span(), "a step owns its input: take it by value"));
        }
        let output = match &signature.output {
            ReturnType::Type(_, output) => output,
            ReturnType::Default => {
                return Err(syn::Error::new(
                    signature.paren_token.span.close(),
                    "a step returns `Result<Output, StepError>`; one without an output returns `Result<(), StepError>`",
                ));
            }
        };
        Ok(Self { input, context, output })
    }
}

/// The given name, or the Cargo package's with `_` for `-`.
fn name(given: Option<LitStr>, function: &ItemFn) -> syn::Result<LitStr> {
    if let Some(name) = given {
        return Ok(name);
    }
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| function.sig.ident.to_string());
    let name = package.replace('-', "_");
    match name_mistake(&name) {
        None => Ok(LitStr::new(&name, Span::call_site())),
        Some(mistake) => Err(syn::Error::new(
            function.sig.ident.span(),
            format!("{mistake}; it comes from the Cargo package, or from `#[step(name = \"...\")]`"),
        )),
    }
}

/// The given summary, or the documentation's first line, or the Cargo package's description.
fn summary(given: Option<LitStr>, attributes: &[Attribute]) -> TokenStream {
    if let Some(summary) = given {
        return quote!(#summary);
    }
    let documented = attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    match documented {
        Some(line) if !line.is_empty() => quote!(#line),
        _ => quote!(::core::env!("CARGO_PKG_DESCRIPTION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler would say of a step, or nothing.
    fn mistake(arguments: &str, function: &str) -> Option<String> {
        let function: ItemFn = syn::parse_str(function).expect("a function");
        let expanded = match syn::parse_str::<Arguments>(arguments) {
            Ok(arguments) => match implement(arguments, &function) {
                Ok(_) => return None,
                Err(error) => error,
            },
            Err(error) => error,
        };
        Some(expanded.to_string())
    }

    const FUNCTION: &str = "fn score(order: Order) -> Result<Score, StepError> { todo() }";

    #[test]
    fn steps_of_every_shape_expand() {
        for (arguments, function) in [
            ("", FUNCTION),
            ("", "pub fn score(order: Order, context: Context) -> Result<Score, StepError> { todo() }"),
            (
                "",
                "pub(crate) fn score(Order { total }: Order, context: &Context) -> Result<Score> { todo() }",
            ),
            ("name = \"score\", version = \"1.2.3-rc.1\", summary = \"Scores\"", FUNCTION),
            (
                "grants(http(\"GET api.example.com\", why = \"rates\"), http(\"* *.example.com:8443\", why = \"x\"))",
                FUNCTION,
            ),
        ] {
            assert_eq!(mistake(arguments, function), None, "{arguments} {function}");
        }
    }

    #[test]
    fn a_wrong_signature_is_told_with_the_right_one() {
        for (function, hint) in [
            ("fn step() -> Result<(), StepError> {}", "an input of nothing is `_: ()`"),
            ("fn step(a: A, b: Context, c: C) -> Result<(), StepError> {}", "context: Context"),
            ("fn step(&self) -> Result<(), StepError> {}", "free function"),
            ("fn step(input: &str) -> Result<(), StepError> {}", "take it by value"),
            ("fn step(input: Input) {}", "returns `Result<Output, StepError>`"),
            ("fn step<T>(input: T) -> Result<(), StepError> {}", "no generic parameters"),
            ("async fn step(input: Input) -> Result<(), StepError> {}", "send_all"),
        ] {
            let mistake = mistake("", function).unwrap_or_else(|| panic!("{function} expands"));
            assert!(mistake.contains(hint), "{function}: {mistake}");
        }
    }

    #[test]
    fn a_wrong_argument_is_told_with_the_right_one() {
        for (arguments, hint) in [
            ("naem = \"x\"", "a step has no `naem`"),
            ("name = \"x\", name = \"y\"", "given twice"),
            ("name = \"Score\"", "no step name"),
            ("version = \"1\"", "one is `1.0.0`"),
            ("summary = \"two\\nlines\"", "one line"),
            ("grants(file(\"/tmp\", why = \"x\"))", "no grant of kind `file`"),
            ("grants(http(\"GET api.example.com\"))", "say why"),
            ("grants(http(\"api.example.com\", why = \"x\"))", "a method and a host"),
            ("grants(http(\"get api.example.com\", why = \"x\"))", "upper case"),
            ("grants(http(\"GET https://api.example.com/\", why = \"x\"))", "no scheme and no path"),
        ] {
            let mistake = mistake(arguments, FUNCTION).unwrap_or_else(|| panic!("{arguments} expands"));
            assert!(mistake.contains(hint), "{arguments}: {mistake}");
        }
    }

    #[test]
    fn the_summary_is_the_first_line_of_documentation_unless_given() {
        let function: ItemFn =
            syn::parse_str(&format!("/// Scores an order.\n/// By its total.\n{FUNCTION}"))
                .expect("a function");
        let summary_of = |given: Option<&str>| {
            summary(given.map(|text| LitStr::new(text, Span::call_site())), &function.attrs).to_string()
        };
        assert_eq!(summary_of(None), "\"Scores an order.\"");
        assert_eq!(summary_of(Some("Given")), "\"Given\"");
    }
}
