//! What stands in the attribute's parentheses.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitStr, Token, parenthesized};

/// `name = "..."`, `version = "..."`, `summary = "..."`, `grants(...)`, each at most once.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) summary: Option<LitStr>,
    pub(crate) grants: Vec<Grant>,
}

/// `http("GET api.example.com", why = "...")`.
pub(crate) struct Grant {
    pub(crate) kind: Ident,
    pub(crate) value: LitStr,
    pub(crate) why: LitStr,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "name" => once(&mut arguments.name, &key, checked(value(input)?, name_mistake)?)?,
                "version" => once(&mut arguments.version, &key, checked(value(input)?, version_mistake)?)?,
                "summary" => once(&mut arguments.summary, &key, checked(value(input)?, summary_mistake)?)?,
                "grants" => {
                    let list;
                    parenthesized!(list in input);
                    arguments.grants.extend(Punctuated::<Grant, Token![,]>::parse_terminated(&list)?);
                }
                other => {
                    return Err(syn::Error::new(
                        key.span(),
                        format!(
                            "a step has no `{other}`; it has `name`, `version`, `summary` and `grants(...)`"
                        ),
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

impl Parse for Grant {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let kind: Ident = input.parse()?;
        if kind != "http" {
            return Err(syn::Error::new(
                kind.span(),
                format!(
                    "there is no grant of kind `{kind}`; there is `http(\"GET api.example.com\", why = \"...\")`"
                ),
            ));
        }
        let inside;
        parenthesized!(inside in input);
        let value = checked(inside.parse()?, http_grant_mistake)?;
        if inside.is_empty() {
            return Err(syn::Error::new(
                value.span(),
                "say why, for the operator who decides: http(\"...\", why = \"...\")",
            ));
        }
        inside.parse::<Token![,]>()?;
        let key: Ident = inside.parse()?;
        if key != "why" {
            return Err(syn::Error::new(key.span(), "expected `why = \"...\"`"));
        }
        inside.parse::<Token![=]>()?;
        let why = inside.parse()?;
        if !inside.is_empty() {
            inside.parse::<Token![,]>()?;
        }
        Ok(Self { kind, value, why })
    }
}

fn value(input: ParseStream<'_>) -> syn::Result<LitStr> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn once(place: &mut Option<LitStr>, key: &Ident, value: LitStr) -> syn::Result<()> {
    if place.is_some() {
        return Err(syn::Error::new(key.span(), format!("`{key}` is given twice")));
    }
    *place = Some(value);
    Ok(())
}

fn checked(literal: LitStr, mistake: fn(&str) -> Option<String>) -> syn::Result<LitStr> {
    match mistake(&literal.value()) {
        Some(mistake) => Err(syn::Error::new(literal.span(), mistake)),
        None => Ok(literal),
    }
}

/// Names are `[a-z][a-z0-9_]*`, or two such with a slash between.
pub(crate) fn name_mistake(name: &str) -> Option<String> {
    let is_name = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase())
            && part
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    let sound = name.split('/').count() <= 2 && name.split('/').all(is_name);
    (!sound).then(|| {
        format!(
            "`{name}` is no step name: a lower-case letter, then lower-case letters, digits and `_`; \
             `owner/name` says whose it is"
        )
    })
}

/// Versions are semantic.
fn version_mistake(version: &str) -> Option<String> {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let numbers: Vec<_> = core.split('.').collect();
    let semantic = numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u64>().is_ok());
    (!semantic).then(|| format!("`{version}` is no semantic version; one is `1.0.0`"))
}

fn summary_mistake(summary: &str) -> Option<String> {
    summary.contains('\n').then(|| "a summary is one line".to_owned())
}

/// `METHOD host[:port]`, either of which may be `*`.
fn http_grant_mistake(value: &str) -> Option<String> {
    let parts: Vec<_> = value.split(' ').collect();
    let [method, host] = parts[..] else {
        return Some(format!(
            "`{value}` is no grant: a method and a host, as in `GET api.example.com`; `*` is any"
        ));
    };
    if method != "*" && !method.chars().all(|letter| letter.is_ascii_uppercase()) {
        return Some(format!("`{method}` is no method: upper case, as in `GET`, or `*`"));
    }
    if host.is_empty() || host.contains('/') {
        return Some(format!(
            "`{host}` is no host: no scheme and no path, as in `api.example.com` or `*.example.com:8443`"
        ));
    }
    None
}
