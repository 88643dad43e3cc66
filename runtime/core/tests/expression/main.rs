//! Expressions and templates: what they refer to, how they are evaluated, and that evaluating a path here gives what
//! jq gives.

mod bounds;
mod evaluating;
mod in_documents;
mod reading;
mod reference;
mod shadowing;
