//! A run's input from the command line: `--input JSON`, `--input @file`, `--input -`, and `--set a.b=value` on top.

use std::io::Read;

use serde_json::{Map, Value, value::RawValue};

use super::exit::Failure;

/// Where a run's input comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct InputArgs {
    /// The run's input: JSON, or @FILE, or - for standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub(crate) input: Option<String>,
    /// Sets one member of the input; the value is JSON, else text. May be repeated
    #[arg(long = "set", value_name = "KEY[.KEY...]=VALUE")]
    pub(crate) set: Vec<String>,
}

impl InputArgs {
    /// The input; an empty object without any argument.
    pub(crate) fn read(&self) -> Result<Box<RawValue>, Failure> {
        let text = match self.input.as_deref() {
            None => "{}".to_owned(),
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|error| {
                    Failure::usage(format!("cannot read the input from standard input: {error}"))
                })?;
                text
            }
            Some(given) => match given.strip_prefix('@') {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("cannot read the input from {path}: {error}")))?,
                None => given.to_owned(),
            },
        };
        let refuse = |error: serde_json::Error| {
            Failure::usage(format!("the input is no JSON: {error}"))
                .hint("quote it for the shell, as in --input '{\"n\": 1}', or read it from a file: --input @input.json")
        };
        if self.set.is_empty() {
            // As it was written: numbers keep all their digits.
            return serde_json::from_str::<Box<RawValue>>(&text).map_err(refuse);
        }
        let mut value: Value = serde_json::from_str(&text).map_err(refuse)?;
        for assignment in &self.set {
            assign(&mut value, assignment)?;
        }
        serde_json::value::to_raw_value(&value).map_err(refuse)
    }
}

fn assign(value: &mut Value, assignment: &str) -> Result<(), Failure> {
    let Some((path, text)) = assignment.split_once('=').filter(|(path, _)| !path.is_empty()) else {
        return Err(Failure::usage(format!("--set {assignment}: write KEY=VALUE")));
    };
    let mut place = value;
    for key in path.split('.') {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(members) = place else {
            return Err(Failure::usage(format!("--set {assignment}: what {key:?} stands in is no object")));
        };
        place = members.entry(key).or_insert(Value::Null);
    }
    *place = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: Option<&str>, set: &[&str]) -> Result<String, String> {
        let args = InputArgs {
            input: input.map(ToOwned::to_owned),
            set: set.iter().map(|&text| text.to_owned()).collect(),
        };
        args.read().map(|raw| raw.get().to_owned()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn nothing_given_is_an_empty_object() {
        assert_eq!(read(None, &[]).as_deref(), Ok("{}"));
    }

    #[test]
    fn json_is_taken_as_it_is_written() {
        assert_eq!(read(Some("{\"n\": 1.50}"), &[]).as_deref(), Ok("{\"n\": 1.50}"));
    }

    #[test]
    fn members_are_set_as_json_or_text() {
        let input = read(Some("{\"a\": {\"b\": 1}}"), &["a.c=2", "name=Ana", "flag=true", "deep.er=\"3\""]);
        let expected = r#"{"a":{"b":1,"c":2},"deep":{"er":"3"},"flag":true,"name":"Ana"}"#;
        assert_eq!(input.as_deref(), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert!(read(Some("{n: 1}"), &[]).is_err_and(|text| text.contains("no JSON")));
        assert!(read(Some("@/nowhere/at/all"), &[]).is_err_and(|text| text.contains("/nowhere/at/all")));
        assert!(read(None, &["novalue"]).is_err_and(|text| text.contains("KEY=VALUE")));
        assert!(read(Some("[1]"), &["a=1"]).is_err_and(|text| text.contains("no object")));
    }
}
