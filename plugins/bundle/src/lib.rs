//! The standard plugins, as bytes: what a host installs by itself at its first start, and what tests run.
//!
//! The build script makes them from `plugins/`; this crate knows nothing of what they do.

/// A component that is part of the product.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The name under which documents use it: `uses: transform@1`. The manifest inside says the same.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/bundle.rs"));
