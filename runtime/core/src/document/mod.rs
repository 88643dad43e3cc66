//! Workflow documents.

pub(crate) mod schema;
