//! The `#[step]` attribute of reipaz-sdk: reads the attribute's arguments ([`arguments`]), checks the function's shape, and
//! leaves beside the untouched function a type `ReipazStep` that implements the SDK's `Step`, and its export ([`expand`]).
//!
//! It knows only syntax. Whether types serialise is the compiler's to say, so the expansion names each type once in a place
//! whose span is the author's own.

mod arguments;
mod expand;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a Reipaz step of a function.
///
/// ```text
/// /// Scores an order.
/// #[reipaz_sdk::step(
///     name = "score",                     // else the Cargo package's name
///     version = "1.2.0",                  // else the Cargo package's version
///     summary = "Scores an order",        // else the function's first line of documentation
///     grants(http("GET api.example.com", why = "fetches the exchange rates")),
/// )]
/// fn score(order: Order) -> Result<Score, StepError> { ... }
/// ```
///
/// The function takes its input, and as a second parameter `Context` or `&Context` if it wants; it returns
/// `Result<Output, StepError>`. A crate holds one step.
#[proc_macro_attribute]
pub fn step(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as arguments::Arguments);
    let function = parse_macro_input!(item as syn::ItemFn);
    expand::expand(arguments, &function).into()
}
