//! Workflow documents, through the crate's public face: what is accepted and what it compiles to, and for what is not
//! accepted exactly what is told and where.

mod accepted;
mod bounds;
mod golden;
mod hints;
mod json;
mod places;
mod plugins;
mod refused;
mod retry;
mod schema;
mod support;
mod texts;
mod yaml;
