//! A step as the host would see it, in a native test.
//!
//! The attribute leaves a type `ReipazStep` beside the function:
//!
//! ```
//! use reipaz_sdk::{Context, StepError, testing};
//!
//! #[reipaz_sdk::step(name = "double")]
//! fn double(number: i64) -> Result<i64, StepError> {
//!     Ok(number * 2)
//! }
//!
//! # fn main() -> Result<(), StepError> {
//! assert_eq!(testing::run::<ReipazStep>(Context::default(), "21")?, "42");
//! assert_eq!(testing::describe::<ReipazStep>().name, "double");
//! # Ok(())
//! # }
//! ```
//!
//! A step that does requests is tested with [`http::testing`](crate::http::testing).

pub use crate::step::{Step, describe, run};
