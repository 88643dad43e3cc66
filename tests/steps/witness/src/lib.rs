//! A step that tells the outside world, twice, what its clock and its randomness say.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    time::{SystemTime, UNIX_EPOCH},
};

use reipaz_sdk::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom to tell.
#[derive(Deserialize, JsonSchema)]
pub struct Input {
    /// Where the two looks are posted.
    url: String,
}

/// What a look gives.
#[derive(Serialize, JsonSchema)]
pub struct Look {
    /// Microseconds since 1970.
    clock_us: u64,
    /// Drawn from the system's randomness.
    random: u64,
}

fn look() -> Look {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The standard library seeds its hashers from the system; the seed differs with each that is made.
    Look {
        clock_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        random: RandomState::new().hash_one(0),
    }
}

/// Posts two looks at clock and randomness.
#[reipaz_sdk::step(name = "witness", grants(http("POST *", why = "tells what it saw")))]
pub fn witness(input: Input) -> Result<Vec<Look>, StepError> {
    let mut looks = Vec::new();
    for _ in 0..2 {
        let look = look();
        http::post(&input.url).json(&look).send()?;
        looks.push(look);
    }
    Ok(looks)
}
