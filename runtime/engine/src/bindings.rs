//! What wasmtime generates from `wit/`: the host's side of the two contracts.

#![allow(missing_docs, unreachable_pub)]

/// `reipaz:step@0.1.0`.
pub(crate) mod step {
    wasmtime::component::bindgen!({
        path: "../../wit/step.wit",
        world: "step",
        exports: { default: async },
        require_store_data_send: true,
    });
}

/// `reipaz:jq@0.1.0`.
pub(crate) mod jq {
    wasmtime::component::bindgen!({
        path: "../../wit/jq.wit",
        world: "jq",
        exports: { default: async },
        require_store_data_send: true,
    });
}
