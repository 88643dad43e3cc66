//! `reipaz doctor`: whether a host can work here, and what to mend.

use serde::Serialize;

use super::{
    exit::{Code, Done, Failure},
    output,
    serve::{HostArgs, start_logging},
};
use crate::doctor::{self, Finding, Status};

/// Checks what a host needs, and says what to mend.
///
/// Takes what `reipaz serve` takes, and changes nothing: it may run beside running hosts, or before the first one starts.
/// The exit code is 0 without failures (warnings are none), else 1.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz doctor
  reipaz doctor --config reipaz.toml
  reipaz doctor --kafka 10.0.0.1:9092 --clickhouse http://10.0.0.2:8123 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Finding],
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    // What librdkafka complains about stands in the findings.
    start_logging(args.host.log_json, "off");
    let file = args.host.config.as_ref().map(|file| file.display().to_string());
    let source = file.unwrap_or_else(|| "no file; defaults, variables and flags".to_owned());
    let findings = doctor::examine(args.host.read(), &source).await;
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let (failures, warnings) = (count(Status::Fail), count(Status::Warn));
    if args.json {
        output::json(&Report { ok: failures == 0, checks: &findings });
    } else {
        output::raw(render(&findings).as_bytes());
        output::line(&summary(failures, warnings));
    }
    if failures > 0 { Err(Failure::silent(Code::Failed)) } else { Ok(()) }
}

/// One line a check, and below it what mends it.
fn render(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { what, status, detail, mend } in findings {
        let word = match status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        text.push_str(&format!("{word:<4}  {what:<width$}  {}\n", one_line(detail)));
        for line in mend.iter().flat_map(|mend| mend.lines()) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    text
}

/// Errors of others may have several.
fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn summary(failures: usize, warnings: usize) -> String {
    let counted = |count, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (failures, warnings) {
        (0, 0) => "\nall is well".to_owned(),
        (0, _) => format!("\na host can work; {}", counted(warnings, "warning")),
        (_, 0) => format!("\n{}", counted(failures, "failure")),
        _ => format!("\n{}, {}", counted(failures, "failure"), counted(warnings, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_what_mends_it_stands_below() {
        let finding = |what: &str, status, detail: &str, mend: &[&str]| Finding {
            what: what.to_owned(),
            status,
            detail: detail.to_owned(),
            mend: mend.iter().map(|&line| line.to_owned()).collect(),
        };
        let text = render(&[
            finding("port", Status::Ok, "free", &[]),
            finding("topic a", Status::Fail, "is\n missing", &["make it --with this"]),
        ]);
        assert_eq!(
            text,
            "ok    port     free\n\
             fail  topic a  is; missing\n        make it --with this\n"
        );
    }
}
