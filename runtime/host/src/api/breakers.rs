//! Circuit breakers: how they stand, and opening and closing one by hand.

use std::sync::Arc;

use axum::{body::Body, extract::State};
use http::{HeaderMap, StatusCode, Uri};
use reipaz_engine::{BreakerId, BreakerKind};
use serde::Deserialize;

use super::{
    Shared, body, kinds, limits,
    problem::Problem,
    respond::{self, Answer},
};
use crate::facade::BreakerHand;

/// No plugin or authority has a longer name, bytes.
const NAME_BYTES: usize = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    kind: BreakerKind,
    name: String,
}

impl Which {
    /// As the engine names it: an authority has a scheme, a host and a port.
    fn id(self) -> Result<BreakerId, Problem> {
        let refuse = |detail: &str| Err(Problem::new(&kinds::MALFORMED_BODY, format!("`name`: {detail}")));
        if self.name.is_empty() || self.name.len() > NAME_BYTES {
            return refuse(&format!("1 to {NAME_BYTES} bytes"));
        }
        let name = match self.kind {
            BreakerKind::Plugin if names_a_version(&self.name) => self.name,
            BreakerKind::Plugin => {
                return refuse("a plugin is as in `acme/score@1.2.0`, or `acme/score@1.2.0 in orders`");
            }
            BreakerKind::Authority => match authority(&self.name) {
                Some(name) => name,
                None => return refuse("an authority is as in `https://shop.example:443`"),
            },
        };
        Ok(BreakerId { kind: self.kind, name: name.into() })
    }
}

/// A plugin's full version, alone or for one workflow.
fn names_a_version(name: &str) -> bool {
    let version = name.split(" in ").next().and_then(|plugin| plugin.split_once('@'));
    version.is_some_and(|(_, version)| semver::Version::parse(version).is_ok())
}

fn authority(name: &str) -> Option<String> {
    let uri: Uri = name.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let default_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let bare = matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("" | "/"));
    bare.then(|| format!("{scheme}://{host}:{}", uri.port_u16().unwrap_or(default_port)))
}

/// `GET /v1/breakers`: of the host that is asked.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    respond::json(StatusCode::OK, &shared.facade.breakers())
}

/// `POST /v1/breakers/open`.
pub(super) async fn open(shared: State<Arc<Shared>>, headers: HeaderMap, which: Body) -> Answer {
    change(shared, headers, which, BreakerHand::Open).await
}

/// `POST /v1/breakers/close`.
pub(super) async fn close(shared: State<Arc<Shared>>, headers: HeaderMap, which: Body) -> Answer {
    change(shared, headers, which, BreakerHand::Close).await
}

async fn change(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    which: Body,
    hand: BreakerHand,
) -> Answer {
    let which: Which =
        body::parse(&body::read(&headers, which, body::JSON, limits::SMALL_BODY_BYTES).await?)?;
    respond::json(StatusCode::OK, &shared.facade.change_breaker(&which.id()?, hand))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_gets_the_port_that_its_scheme_has() {
        assert_eq!(authority("https://Shop.example").as_deref(), Some("https://shop.example:443"));
        assert_eq!(authority("http://shop.example:8080/").as_deref(), Some("http://shop.example:8080"));
        assert_eq!(authority("http://[::1]:80").as_deref(), Some("http://[::1]:80"));
        for wrong in ["shop.example", "ftp://shop.example", "https://shop.example/orders", "https://", "x y"]
        {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }
}
