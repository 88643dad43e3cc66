//! The alerting rules in `docs` speak of metrics and labels that hosts really expose: each name in each expression is looked
//! up in what running hosts answer at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use reipaz_tests::{
    host::{Host, Settings, repository},
    kafka::Deployment,
    upstream::Upstream,
    wait,
    workflows::CALL,
    yaml,
};
use serde_json::{Value, json};

/// Labels that Prometheus itself adds to whatever it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];

/// Labels whose values come with the case that a rule is for, so that a healthy host does not show them.
const VALUES_COME_LATER: [&str; 2] = ["status", "class"];

/// What is no name of a metric in an expression.
const WORDS: [&str; 13] = [
    "by", "on", "and", "or", "unless", "ignoring", "without", "sum", "max", "min", "rate", "increase",
    "deriv",
];

/// By metric: its labels, and which values each has.
type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Adds what a host exposes.
fn add(exposed: &mut Exposed, metrics: &str) {
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = exposed.entry(name.to_owned()).or_default();
        for Matcher { label, value } in matchers(labels.trim_end_matches('}')) {
            known.entry(label).or_default().insert(value);
        }
    }
}

/// What a label has to be: `code=~"d|e"`.
#[derive(Debug)]
struct Matcher {
    label: String,
    value: String,
}

/// `a="b",c=~"d|e"`, one by one.
fn matchers(text: &str) -> Vec<Matcher> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (left, after) = rest.split_once('"').expect("a value in quotes");
        let (value, after) = after.split_once('"').expect("the end of the value");
        let label: String = left.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.push(Matcher { label, value: value.to_owned() });
        rest = after.trim_start_matches([',', ' ']);
    }
    found
}

/// What an expression speaks of: metrics with their matchers, and labels that it groups by.
#[derive(Debug, Default)]
struct Spoken {
    metrics: Vec<(String, Vec<Matcher>)>,
    grouped: BTreeSet<String>,
}

/// Reads as much of PromQL as the rules use; a word that it does not know counts as a metric.
fn spoken(expression: &str) -> Spoken {
    let mut spoken = Spoken::default();
    let mut rest = expression;
    while let Some(start) =
        rest.find(|c: char| c.is_alphabetic() || c == '_' || c == '[' || c.is_ascii_digit())
    {
        rest = &rest[start..];
        if let Some(range) = rest.strip_prefix('[') {
            rest = range.split_once(']').expect("the end of a range").1;
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        if matches!(word, "by" | "on") {
            let (labels, after) = rest.trim_start().trim_start_matches('(').split_once(')').expect("labels");
            spoken.grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if !WORDS.contains(&word) {
            let matching = match rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
                Some((inside, after)) => {
                    rest = after;
                    matchers(inside)
                }
                None => Vec::new(),
            };
            spoken.metrics.push((word.to_owned(), matching));
        }
    }
    spoken
}

/// The labels that `{{ $labels.x }}` names.
fn templated(text: &str) -> Vec<String> {
    let names = text.split("$labels.").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

fn rules() -> Vec<Value> {
    let text = std::fs::read_to_string(repository().join("docs/reipaz.rules.yml")).expect("the rules");
    let groups = yaml::read(&text)["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

#[test]
fn every_rule_says_since_when_how_grave_and_what_to_do() {
    let rules = rules();
    assert!(rules.len() >= 12, "{}", rules.len());
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name), "{name} stands twice");
        let wait = rule["for"].as_str().unwrap_or_else(|| panic!("{name}: no `for`"));
        assert!(wait.trim_end_matches(['s', 'm', 'h']).parse::<u32>().is_ok(), "{name}: {wait}");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(matches!(severity, "warning" | "critical"), "{name}: {severity}");
        for text in ["summary", "runbook"] {
            let said = rule["annotations"][text].as_str().unwrap_or_default();
            assert!(said.len() > 20, "{name}: {text}: {said}");
        }
    }
}

#[test]
fn an_expression_is_read_as_prometheus_reads_it() {
    let read =
        spoken("sum by (job, class) (rate(a_total{x=\"1\",y=~\"b|c\"}[5m])) > 1.5 and on (job) max(d) == 0");
    let metrics: Vec<&str> = read.metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(metrics, ["a_total", "d"]);
    let Matcher { label, value } = &read.metrics[0].1[1];
    assert_eq!((label.as_str(), value.as_str()), ("y", "b|c"));
    assert_eq!(read.grouped, ["class", "job"].map(str::to_owned).into());
    assert_eq!(spoken("nonsense(a)").metrics.len(), 2, "an unknown function is found as an unknown metric");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_and_label_of_the_rules_is_exposed() {
    // Given a host of its own that has seen a failed attempt, and one on Kafka.
    let upstream = Upstream::start(|_| async { StatusCode::NOT_FOUND }).await;
    let alone = Host::start(Settings::new()).await;
    let shared = Host::start(Deployment::new(2).settings()).await;
    alone.client().must_publish(CALL).await;
    alone.client().run("call", &json!({"url": upstream.url("/")})).await;
    wait::until("the failure", std::time::Duration::from_secs(20), || async {
        (alone.client().metric("reipaz_attempts_failed_total").await > 0.0).then_some(())
    })
    .await;
    let mut exposed = Exposed::new();
    for host in [&alone, &shared] {
        let breaker = serde_json::json!({"kind": "authority", "name": "https://shop.example"});
        host.client().post("/v1/breakers/open", &breaker).await.expect(200);
        // Asked twice: requests are counted once they are answered.
        for _ in 0..2 {
            add(&mut exposed, &host.client().get("/metrics").await.expect(200).text());
        }
    }
    exposed.insert("up".to_owned(), BTreeMap::new());

    for rule in rules() {
        let (name, expression) =
            (rule["alert"].as_str().expect("a name"), rule["expr"].as_str().expect("expr"));
        let Spoken { metrics, grouped } = spoken(expression);
        assert!(!metrics.is_empty(), "{name}: {expression} speaks of no metric");

        // Then each metric is there, with the labels and values that the rule asks for,
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for (metric, matching) in &metrics {
            let labels = exposed.get(metric).unwrap_or_else(|| panic!("{name}: no host exposes {metric}"));
            known.extend(labels.keys().map(String::as_str));
            let own = |matcher: &&Matcher| !OF_PROMETHEUS.contains(&matcher.label.as_str());
            for Matcher { label, value: wanted } in matching.iter().filter(own) {
                let values = labels.get(label).unwrap_or_else(|| panic!("{name}: {metric} has no {label}"));
                let there = wanted.split('|').all(|value| values.contains(value));
                assert!(
                    there || VALUES_COME_LATER.contains(&label.as_str()),
                    "{name}: {label} is {values:?}"
                );
            }
        }

        // and so is each label that it groups by, or that its texts name.
        known.extend(OF_PROMETHEUS);
        for label in &grouped {
            assert!(known.contains(label.as_str()), "{name}: nothing has {label}");
        }
        let texts = ["summary", "runbook"].map(|text| rule["annotations"][text].as_str().expect("a text"));
        for label in texts.into_iter().flat_map(templated) {
            let survives = grouped.is_empty() || grouped.contains(&label);
            assert!(known.contains(label.as_str()) && survives, "{name}: its texts name {label}");
        }
    }
}
