//! Names that change where they lead, and answers that lead elsewhere: a request goes to an address that was checked for it,
//! or nowhere.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reipaz_engine::{Attempt, Class, Failure, Grants, Resolver};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rig::{Rig, grants};
use crate::server::Server;

/// Where the name may lead: a network that the operator listed.
const ALLOWED: &str = "127.0.0.2";

/// Where no name may lead, as DNS could say it.
const REFUSED: [&str; 12] = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "::",
    "10.0.0.7",
    "192.168.1.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "fd00:ec2::254",
    "fe80::1",
    "64:ff9b::7f00:1",
];

/// A name server in an attacker's hand: its answers in turn, the last one for ever.
#[derive(Debug)]
struct Rebinding {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    looks: Mutex<Vec<String>>,
}

impl Rebinding {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parsed = answers.iter().map(|answer| answer.iter().map(|a| a.parse().unwrap()).collect());
        Arc::new(Self { answers: Mutex::new(parsed.collect()), looks: Mutex::default() })
    }

    fn looks(&self) -> usize {
        self.looks.lock().unwrap().len()
    }
}

#[async_trait]
impl Resolver for Rebinding {
    async fn lookup(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        self.looks.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        Ok(answer.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// A server that may be called, and on the same port of this machine one that may not.
async fn both() -> (Server, Server, String) {
    for _ in 0..100 {
        let allowed = Server::start_at(&format!("{ALLOWED}:0")).await.unwrap();
        let port = allowed.authority.rsplit_once(':').unwrap().1.to_owned();
        // Whoever else has that port: another one.
        if let Ok(forbidden) = Server::start_at(&format!("127.0.0.1:{port}")).await {
            return (allowed, forbidden, port);
        }
    }
    panic!("no port is free on two addresses");
}

/// The name is granted, and one network besides the public ones.
fn granted(port: &str) -> Arc<Grants> {
    Arc::new(Grants {
        private_networks: vec![format!("{ALLOWED}/32").parse().unwrap()],
        ..(*grants(&[&format!("* moving.example:{port}")])).clone()
    })
}

async fn rig(resolver: Arc<Rebinding>) -> Rig {
    Rig::with(|config| config.resolver = resolver).await
}

async fn get(rig: &Rig, port: &str, path: &str) -> Result<Value, Failure> {
    let input = json!({"do": "http", "authority": format!("moving.example:{port}"), "path": path});
    let attempt = Attempt { grants: granted(port), ..rig.attempt(input) };
    rig.engine.run(attempt).await.result.map(|output| serde_json::from_str(&output).unwrap())
}

fn assert_denied(failure: &Failure, why: &str) {
    assert_eq!((failure.class, failure.code.as_str()), (Class::Denied, "http_denied"), "{why}: {failure:?}");
}

#[tokio::test]
async fn a_connection_goes_to_the_address_that_was_checked_and_to_no_later_one() {
    for refused in REFUSED {
        // Given a name that leads to an allowed address at the first look and to a refused one from then on.
        let (allowed, forbidden, port) = both().await;
        let names = Rebinding::new(&[&[ALLOWED], &[refused]]);
        let rig = rig(names.clone()).await;
        // When it is called, then it is looked up once, and what was checked is what is reached.
        assert_eq!(get(&rig, &port, "/last").await.unwrap()["status"], 200, "{refused}");
        assert_eq!((names.looks(), allowed.requests()), (1, 1), "{refused}");
        // And when it is called again, the new answer is checked like the first.
        let failure = get(&rig, &port, "/last").await.unwrap_err();
        assert_denied(&failure, refused);
        let shown = refused.parse::<IpAddr>().unwrap().to_string();
        assert!(failure.message.contains(&shown), "{}", failure.message);
        assert_eq!((names.looks(), allowed.requests()), (2, 1), "{refused}");
        assert_eq!(forbidden.connections(), 0, "{refused}");
    }
}

#[tokio::test]
async fn of_a_names_addresses_only_those_that_are_allowed_are_tried() {
    let (allowed, forbidden, port) = both().await;
    // More refused ones before it than are tried in all.
    let answer: Vec<&str> = REFUSED.iter().copied().chain([ALLOWED]).collect();
    let rig = rig(Rebinding::new(&[&answer])).await;
    assert_eq!(get(&rig, &port, "/echo").await.unwrap()["status"], 200);
    assert_eq!((allowed.requests(), forbidden.connections()), (1, 0));
}

#[tokio::test]
async fn a_connection_that_is_kept_still_leads_where_it_was_checked() {
    let (allowed, forbidden, port) = both().await;
    let names = Rebinding::new(&[&[ALLOWED], &["127.0.0.1"]]);
    let rig = rig(names.clone()).await;
    for _ in 0..5 {
        // Until a connection is given back the name may be looked up anew, and then it is refused.
        match get(&rig, &port, "/echo").await {
            Ok(answer) => assert_eq!(answer["status"], 200),
            Err(failure) => assert_denied(&failure, "looked up anew"),
        }
    }
    assert!(allowed.requests() >= 1);
    assert_eq!((allowed.connections(), forbidden.connections()), (1, 0));
}

#[tokio::test]
async fn a_resolver_that_never_answers_is_cut_with_the_attempt() {
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl Resolver for Silent {
        async fn lookup(&self, _: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
            std::future::pending().await
        }
    }

    let rig = Rig::with(|config| config.resolver = Arc::new(Silent)).await;
    let input = json!({"do": "http", "authority": "moving.example:80"});
    let timeout = Duration::from_millis(200);
    let began = Instant::now();
    let attempt = Attempt { grants: granted("80"), timeout, ..rig.attempt(input) };
    assert_eq!(rig.engine.run(attempt).await.result.unwrap_err().class, Class::Timeout);
    assert!(began.elapsed() < timeout * 3, "{:?}", began.elapsed());
    rig.assert_sound().await;
}

#[tokio::test]
async fn a_redirect_to_what_is_refused_is_refused_when_the_guest_follows_it() {
    // Given a granted server that answers with a redirect, and one that no grant names.
    let (rig, server, forbidden) = (Rig::new().await, Server::start().await, Server::start().await);
    let here = format!("* {}", server.authority);
    let port = forbidden.authority.rsplit_once(':').unwrap().1;
    let places = [
        forbidden.authority.clone(),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("2130706433:{port}"),
        format!("0.0.0.0:{port}"),
        "169.254.169.254".to_owned(),
    ];
    for place in places {
        // Whether nothing else is granted, or every name and every port: those are no addresses of this machine.
        for granted in [grants(&[&here]), grants(&[&here, "* *:*", "* *"])] {
            let path = format!("/redirect_to/http://{place}/secret");
            let input = json!({"do": "http", "authority": server.authority, "path": path});
            // When the guest leaves it, it is an answer like any other, and nobody has followed it.
            let attempt = Attempt { grants: granted.clone(), ..rig.attempt(input.clone()) };
            let answer: Value = serde_json::from_str(&rig.engine.run(attempt).await.result.unwrap()).unwrap();
            assert_eq!(answer["status"], 302, "{place}");
            // When the guest follows it, it is denied.
            let mut input = input;
            input["follow"] = json!(true);
            let attempt = Attempt { grants: granted, ..rig.attempt(input) };
            assert_denied(&rig.engine.run(attempt).await.result.unwrap_err(), &place);
        }
    }
    assert_eq!(forbidden.connections(), 0);
    // A redirect to where the guest may go is its own business.
    let path = format!("/redirect_to/http://{}/echo", server.authority);
    let input = json!({"do": "http", "authority": server.authority, "path": path, "follow": true});
    let attempt = Attempt { grants: grants(&[&here]), ..rig.attempt(input) };
    let answer: Value = serde_json::from_str(&rig.engine.run(attempt).await.result.unwrap()).unwrap();
    assert_eq!(answer["status"], 200);
}
