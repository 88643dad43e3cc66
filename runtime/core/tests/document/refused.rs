//! What is refused: each mistake with its code, its place in the text and its hint.
//!
//! A case is a document in which `«` and `»` stand around what must be pointed at; the rest of the row says what
//! must be told about it.

use crate::support::{refused, shown};

/// Takes the marks out of a text; gives the text and the line and column of each mark (counted from 1).
fn unmarked(text: &str) -> (String, [(u32, u32); 2]) {
    let position = |offset: usize| {
        let before = text[..offset].replace(['«', '»'], "");
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() as u32 + 1;
        (line, column)
    };
    let marks = ['«', '»'].map(|mark| position(text.find(mark).expect("the case has both marks")));
    (text.replace(['«', '»'], ""), marks)
}

/// The only mistake of `text`: where it is marked, with this pointer, code, and a hint or message that contains
/// these words.
#[track_caller]
pub(crate) fn case(text: &str, pointer: &str, code: &str, words: &str) {
    let (text, [start, end]) = unmarked(text);
    let mistakes = refused(&text);
    assert_eq!(mistakes.len(), 1, "one mistake, not:\n{}", shown(&mistakes));
    let mistake = &mistakes[0];
    assert_eq!((mistake.code, mistake.pointer.as_str()), (code, pointer), "{mistake}");
    let place = [(mistake.line, mistake.column), (mistake.end_line, mistake.end_column)];
    assert_eq!(place, [start, end], "{mistake}");
    let said = format!("{} {}", mistake.message, mistake.hint.as_deref().unwrap_or_default());
    assert!(said.contains(words), "{said:?} does not say {words:?}");
    let step = pointer.strip_prefix("/steps/").map(|rest| rest.split('/').next().unwrap_or_default());
    assert_eq!(mistake.step.as_deref(), step);
}

/// A workflow of one step `a`, in which this stands.
pub(crate) fn in_step(rest: &str) -> String {
    format!("reipaz: 1\nname: w\nsteps:\n  a:\n    uses: acme/score@2\n{rest}")
}

/// A workflow of steps `a` and `b`, in which this stands in `b`.
pub(crate) fn in_second(rest: &str) -> String {
    format!("{}  b:\n    uses: acme/score@2\n{rest}", in_step(""))
}

#[test]
fn malformed_yaml_and_json() {
    case("reipaz: 1\nname: a«:» b\nsteps: {}\n", "", "syntax", "quotes");
    case("reipaz: 1\nsteps:\n«\t»a: 1\n", "", "tab", "spaces");
    case("{\"reipaz\": 1,\n \"name\" «\"»w\"}", "", "syntax", "expected `:`");
    case("{\"reipaz\": 1 «\"»name\": 2}", "", "syntax", "expected `,` or `}`");
    case("{\"reipaz\": 1«»", "", "syntax", "the text ends");
    case("{\"reipaz\": 1} «x»", "", "syntax", "nothing may follow");
    case("«»", "", "empty", "at least");
    case(&in_step("«---»\nreipaz: 1\n"), "", "multiple_documents", "second document");
    case("«»- 1\n", "", "wrong_type", "an object, not a list");
}

#[test]
fn what_yaml_has_and_json_lacks() {
    case(&in_step("    with: {a: «.inf»}\n"), "/steps/a/with/a", "not_json", "no number");
    case(&in_step("    with: {a: !thing «x»}\n"), "/steps/a/with/a", "not_json", "tag");
    case(&in_step("    with: {? «[1]» : 2}\n"), "/steps/a/with", "not_json", "cannot be a key");
    case(&in_step("    with: &w [1, «*w»]\n"), "", "not_json", "inside what it names");
    case(&in_step("    with: &w {a: 1}\n    «<<»: *w\n"), "/steps/a", "not_json", "merge keys");
}

#[test]
fn keys() {
    case(
        "reipaz: 1\nname: w\n«nmae»: x\nsteps: {a: {uses: transform, with: {filter: .}}}\n",
        "/nmae",
        "unknown_key",
        "`name`",
    );
    case(&in_step("    «wiht»: 1\n"), "/steps/a/wiht", "unknown_key", "did you mean `with`?");
    case(&in_step("    «run»: 1\n"), "/steps/a/run", "unknown_key", "a step has `uses`");
    case(&in_step("    «uses»: transform\n"), "/steps/a/uses", "duplicate_key", "the first is at 5:5");
    case("«»name: w\nsteps: {a: {uses: acme/score}}\n", "", "missing_key", "`reipaz`");
    case("reipaz: 1\nname: w\nsteps:\n  «a»:\n    with: 1\n", "/steps/a", "missing_key", "`uses`");
    case(
        "{\"reipaz\": 1, \"name\": \"w\", \"steps\": {\"a\": {\"uses\": \"acme/score\", «\"uses\"»: \"x\"}}}",
        "/steps/a/uses",
        "duplicate_key",
        "twice",
    );
    for later in ["for_each", "switch", "wait", "wait_for", "workflow"] {
        case(
            &in_step(&format!("    «{later}»: 1\n")),
            &format!("/steps/a/{later}"),
            "not_supported_yet",
            later,
        );
    }
    case(&format!("«triggers»: 1\n{}", in_step("")), "/triggers", "not_supported_yet", "triggers");
}

#[test]
fn limits_of_runs() {
    let with =
        |what: &str| format!("reipaz: 1\nname: w\nconcurrency: {what}\nsteps: {{a: {{uses: acme/score}}}}\n");
    let refused = |what: &str, pointer: &str, code: &str, words: &str| {
        case(&with(what), &format!("/concurrency{pointer}"), code, words);
    };
    refused("«5»", "", "wrong_type", "must be an object");
    case(
        "reipaz: 1\nname: w\n«concurrency»: {key: $input.a}\nsteps: {a: {uses: acme/score}}\n",
        "/concurrency",
        "missing_key",
        "limit: 10",
    );
    refused("{limit: «0»}", "/limit", "out_of_range", "at least 1");
    refused("{limit: «1.5»}", "/limit", "bad_value", "whole number");
    refused("{limit: 1, when_full: «drop»}", "/when_full", "bad_value", "`queue` or `reject`");
    refused("{limit: 1, when_full: reject, max_queued: «5»}", "/max_queued", "bad_value", "when_full: queue");
    refused("{rate: {starts: 5, per: «1»}}", "/rate/per", "bad_duration", "write a unit");
    refused("{rate: {starts: «20000», per: 1h}}", "/rate/starts", "out_of_range", "at most 10000");
    refused("{limit: 1, key: «$input.a | length»}", "/key", "bad_value", "plain paths");
    refused("{limit: 1, key: «'${ $input.a | length }'»}", "/key", "bad_value", "plain paths");
    refused("{limit: 1, key: $steps.«a».output}", "/key", "unknown_step", "before the step");
    refused("{limit: 1, key: $secrets.«a»}", "/key", "secret_outside_with", "`concurrency`");
    refused("{limit: 1, key: «$error».code}", "/key", "unknown_name", "on_failure");
    refused("{limit: 1, key: '$input.«)»'}", "/key", "expression_syntax", "");
}

#[test]
fn types_and_values() {
    case("reipaz: «2»\nname: w\nsteps: {a: {uses: acme/score}}\n", "/reipaz", "bad_value", "`reipaz: 1`");
    case(
        "reipaz: 1\nname: «12»\nsteps: {a: {uses: acme/score}}\n",
        "/name",
        "wrong_type",
        "a string, not a number",
    );
    case(
        "reipaz: 1\nname: «My Orders»\nsteps: {a: {uses: acme/score}}\n",
        "/name",
        "bad_name",
        "`my_orders`",
    );
    case(
        "reipaz: 1\nname: w\nsteps:\n  «fetchAll»: {uses: acme/score}\n",
        "/steps/fetchAll",
        "bad_name",
        "`fetch_all`",
    );
    case("reipaz: 1\nname: w\n«steps»: {}\n", "/steps", "bad_value", "at least one step");
    case("reipaz: 1\nname: w\n«steps»: [1]\n", "/steps", "wrong_type", "an object of steps");
    case("reipaz: 1\nname: w\nsteps: {«a»: }\n", "/steps/a", "wrong_type", "an object, not nothing");
    case(&in_step("    timeout: «10»\n"), "/steps/a/timeout", "bad_duration", "`10s`");
    case(&in_step("    timeout: «10 s»\n"), "/steps/a/timeout", "bad_duration", "500ms");
    case(&in_step("    timeout: «0s»\n"), "/steps/a/timeout", "out_of_range", "at least 1ms");
    case(&in_step("    timeout: «8d»\n"), "/steps/a/timeout", "out_of_range", "at most 7d");
    case(&in_step("    retry: {attempts: «0»}\n"), "/steps/a/retry/attempts", "out_of_range", "at least 1");
    case(&in_step("    retry: {attempts: «1.5»}\n"), "/steps/a/retry/attempts", "bad_value", "whole");
    case(&in_step("    retry: {factor: «0.5»}\n"), "/steps/a/retry/factor", "out_of_range", "at least 1");
    case(&in_step("    retry: {jitter: «some»}\n"), "/steps/a/retry/jitter", "bad_value", "`full` or `none`");
    case(&in_step("    retry: «5»\n"), "/steps/a/retry", "wrong_type", "an object");
    case(
        &in_step("    retry: {«by_error»: [409]}\n"),
        "/steps/a/retry/by_error",
        "wrong_type",
        "by class, status or code",
    );
    case(
        &in_step("    retry: {by_error: {«host»: never}}\n"),
        "/steps/a/retry/by_error/host",
        "bad_value",
        "never tried",
    );
    case(
        &in_step("    retry: {by_error: {«\"777\"»: never}}\n"),
        "/steps/a/retry/by_error/777",
        "bad_value",
        "HTTP status",
    );
    case(
        &in_step("    retry: {by_error: {network: «always»}}\n"),
        "/steps/a/retry/by_error/network",
        "wrong_type",
        "`never`",
    );
    let deep = "/steps/a/retry/by_error/network/attempts";
    case(&in_step("    retry: {by_error: {network: {attempts: «0»}}}\n"), deep, "out_of_range", "at least 1");
    case(&in_step("    on_failure: «panic»\n"), "/steps/a/on_failure", "wrong_type", "`pause`");
    let value = "/steps/a/on_failure/continue_with";
    case(
        &in_step("    on_failure: {continue_with: «\"${ $input | length }\"»}\n"),
        value,
        "bad_value",
        "plain paths",
    );
    case(
        &in_step("    on_failure: {continue_with: \"${ $steps.«a».output }\"}\n"),
        value,
        "self_reference",
        "itself",
    );
    case(&in_step("    if: «7»\n"), "/steps/a/if", "wrong_type", "an expression");
    case(&in_step("secrets: [x, «x»]\n"), "/secrets/1", "bad_value", "twice");
}

#[test]
fn what_runs_on_a_failure() {
    let steps = "/steps/a/on_failure/steps";
    case(&in_step("    on_failure: {«steps»: {}}\n"), steps, "bad_value", "at least one");
    case(&in_step("    on_failure: {«steps»: [1]}\n"), steps, "wrong_type", "by their names, not a list");
    let page = "uses: acme/score@2";
    case(
        &in_step(&format!("    on_failure: {{steps: {{m: {{{page}}}}}, continue_with: «1»}}\n")),
        "/steps/a/on_failure/continue_with",
        "bad_value",
        "`output`",
    );
    case(
        &in_step("    on_failure: {continue_with: 1, output: «1»}\n"),
        "/steps/a/on_failure/output",
        "bad_value",
        "`steps`",
    );
    let inner =
        format!("    on_failure: {{steps: {{m: {{{page}, on_failure: {{steps: {{«n»: {{{page}}}}}}}}}}}}}\n");
    let pointer = format!("{steps}/m/on_failure/steps/n");
    case(&in_step(&inner), &pointer, "bad_value", "no `on_failure` steps of their own");
    let twice = format!("    on_failure: {{steps: {{«a»: {{{page}}}}}}}\n");
    case(&in_step(&twice), &format!("{steps}/a"), "bad_name", "unique");
    let run = format!("on_failure: {{steps: {{«a»: {{{page}}}}}}}\n");
    case(&in_step(&run), "/on_failure/steps/a", "bad_name", "unique");
    case(&in_step("«on_failure»: {}\n"), "/on_failure", "missing_key", "no `steps`");

    // Who may read whom.
    let mended = |rest: &str| in_step(&format!("    on_failure: {{steps: {{m: {{{page}{rest}}}}}}}\n"));
    let second = |rest: &str| format!("{}  b:\n    {page}\n    with: {{x: \"${{ {rest} }}\"}}\n", mended(""));
    case(&second("$steps.«m».output"), "/steps/b/with/x", "unknown_step", "only when `a` has failed");
    case(&second("«$error».code"), "/steps/b/with/x", "unknown_name", "only inside an `on_failure`");
    case(&format!("{}output: \"${{ «$error» }}\"\n", in_step("")), "/output", "unknown_name", "on_failure");
    let reads_b = format!("{}  b:\n    {page}\n", mended(", with: {x: \"${ $steps.«b».output }\"}"));
    case(&reads_b, &format!("{steps}/m/with/x"), "unknown_step", "may still be running");
    let needs = mended(", needs: [«a»]");
    case(&needs, &format!("{steps}/m/needs/0"), "unknown_step", "is over before");
    let secret = format!(
        "    on_failure: {{steps: {{m: {{{page}}}}}, output: \"${{ $secrets.«s» }}\"}}\nsecrets: [s]\n"
    );
    case(&in_step(&secret), "/steps/a/on_failure/output", "secret_outside_with", "`on_failure`");
}

#[test]
fn references() {
    case(
        &in_second("    with: {x: \"${ $steps.«aa».output }\"}\n"),
        "/steps/b/with/x",
        "unknown_step",
        "did you mean `a`?",
    );
    case(&in_second("    needs: [«fetch»]\n"), "/steps/b/needs/0", "unknown_step", "`a` and `b`");
    case(&in_second("    needs: [«b»]\n"), "/steps/b/needs/0", "self_reference", "itself");
    case(&in_second("    if: $steps.«b».output\n"), "/steps/b/if", "self_reference", "reads itself");
    case(
        &in_second("    with: {x: \"${ [.steps[\\\"«c»\\\"]] }\"}\n"),
        "/steps/b/with/x",
        "unknown_step",
        "no step `c`",
    );
    case(&in_second("output: x ${ $steps.«c».output }\n"), "/output", "unknown_step", "no step `c`");
}

#[test]
fn a_cycle_is_named_once_and_so_is_each_of_two() {
    let text = "reipaz: 1\nname: w\nsteps:\n  a: {uses: acme/score, needs: [«c»]}\n  \
                b: {uses: acme/score, with: {x: \"${ $steps.a.output }\"}}\n  \
                c: {uses: acme/score, if: $steps.b.status}\n  d: {uses: acme/score, needs: [c]}\n";
    case(text, "/steps/a/needs/0", "cycle", "a -> c -> b -> a");
    let two = "reipaz: 1\nname: w\nsteps:\n  a: {uses: acme/score, needs: [b]}\n  b: {uses: acme/score, needs: [a]}\n  \
               c: {uses: acme/score, needs: [d]}\n  d: {uses: acme/score, needs: [c]}\n";
    let mistakes = refused(two);
    let told: Vec<_> = mistakes.iter().map(|mistake| (mistake.code, mistake.pointer.as_str())).collect();
    assert_eq!(told, [("cycle", "/steps/a/needs/0"), ("cycle", "/steps/c/needs/0")]);
}

#[test]
fn plugins() {
    case(
        &in_step("").replace("acme/score@2", "«http_requst@1»"),
        "/steps/a/uses",
        "unknown_plugin",
        "did you mean `http_request@1`?",
    );
    case(
        &in_step("").replace("acme/score@2", "«transform@2»"),
        "/steps/a/uses",
        "unknown_plugin",
        "`transform@1.0.0`",
    );
    case(&in_step("").replace("acme/score@2", "«Score@latest»"), "/steps/a/uses", "bad_uses", "name@1");
    case(&in_step("").replace("acme/score@2", "«a/b/c»"), "/steps/a/uses", "bad_uses", "names no plugin");
}

#[test]
fn inputs_that_the_plugin_refuses() {
    let http = |with: &str| format!("reipaz: 1\nname: w\nsteps:\n  a:\n    uses: http_request@1\n{with}");
    case(&http("").replace("  a:", "  «a»:"), "/steps/a", "input_refused", "needs `url`");
    case(&http("    with: {url: «ftp://x»}\n"), "/steps/a/with/url", "input_refused", "refuses");
    case(
        &http("    with: {url: \"http://x\", «metod»: GET}\n"),
        "/steps/a/with/metod",
        "input_refused",
        "`method`",
    );
    case(
        &http("    with:\n      url: http://x\n      method: «PUT»\n"),
        "/steps/a/with/method",
        "input_refused",
        "GET",
    );
    case(
        &http("    with: {url: \"http://x\", headers: {x: «1»}}\n"),
        "/steps/a/with/headers/x",
        "input_refused",
        "string",
    );
    case(
        &http("    with: {url: \"http://x\", retries: «\"${ $input.x } times\"»}\n"),
        "/steps/a/with/retries",
        "input_refused",
        "integer",
    );
    case(
        &http("    with: {url: \"http://x\", tags: [\"${ $input.x }\", «5»]}\n"),
        "/steps/a/with/tags/1",
        "input_refused",
        "string",
    );
    case(&http("    «with»: {method: \"${ $input.m }\"}\n"), "/steps/a/with", "input_refused", "needs `url`");
}

#[test]
fn expressions() {
    let with = |text: &str| in_second(&format!("    with:\n      x: {text}\n"));
    let x = "/steps/b/with/x";
    case(&with("${ $input.a +« »}"), x, "expression_syntax", "found the end");
    case(&with("a ${ $input.a «)» }"), x, "expression_syntax", "closes nothing");
    case(&with("a «$»{ $input.a"), x, "expression_syntax", "missing");
    case(
        &with("\"é \\u00e9 ${ $inptu }\"").replace("$inptu", "«$inptu»"),
        x,
        "unknown_name",
        "did you mean `$input`?",
    );
    case(&with("|\n        two lines\n        ${ $steps.a.«body» }\n"), x, "unknown_name", ".output.body");
    case(
        &with("&anchor >-\n        folded\n        ${ $steps.a.«body» }\n"),
        x,
        "unknown_name",
        ".output.body",
    );
    case(&with("'it''s ${ .«inputs».x }'"), x, "unknown_name", "did you mean `.input`?");
    case(&with("${ «$steps»[$input.name] }"), x, "computed_reference", "$steps.NAME");
    case(&with("${ «$item».x }"), x, "not_supported_yet", "$item");
    case(&with("${ «now» }"), x, "unknown_name", "clock");
    case(&with("${ $steps | «keys» }"), x, "computed_reference", "name what it needs");
    case(&in_step("    if: «${ $input.x }»\n"), "/steps/a/if", "expression_syntax", "write `if: $input.x`");
    case(&in_step("    if: \"«»\"\n"), "/steps/a/if", "expression_syntax", "empty");
}

#[test]
fn secrets() {
    let secrets = |rest: &str| format!("secrets: [token]\n{}", in_step(rest));
    case(
        &secrets("    with: [\"${ $secrets.token }\", \"${ $secrets.«tokn» }\"]\n"),
        "/steps/a/with/1",
        "undeclared_secret",
        "`token`",
    );
    case(&secrets("    if: $secrets.«token» != null\n"), "/steps/a/if", "secret_outside_with", "`if`");
    case(&secrets("output: [\"${ $secrets.«token» }\"]\n"), "/output/0", "secret_outside_with", "`output`");
    case(
        &secrets("    with: \"${ $secrets | «tojson» }\"\n"),
        "/steps/a/with",
        "computed_reference",
        "$secrets.NAME",
    );
}

#[test]
fn grants() {
    case(
        &in_step("    grants: {http: [«get shop.example»]}\n"),
        "/steps/a/grants/http/0",
        "bad_grant",
        "`GET`",
    );
    case(
        &in_step("    grants: {http: [«\"GET https://shop.example/x\"»]}\n"),
        "/steps/a/grants/http/0",
        "bad_grant",
        "write `GET shop.example`",
    );
    case(&in_step("    grants: {«files»: [/tmp]}\n"), "/steps/a/grants/files", "unknown_key", "`http`");
}

#[test]
fn schemas() {
    case(&format!("input: {{type: «strin»}}\n{}", in_step("")), "/input/type", "bad_schema", "strin");
    let far = "input: {«$ref»: \"https://elsewhere.example/schema\"}\n".replace("«$ref»", "$ref");
    let mistakes = refused(&format!("{far}{}", in_step("")));
    assert_eq!((mistakes.len(), mistakes[0].code), (1, "bad_schema"));
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_text() {
    let text = "reipaz: 1\nname: Orders\ntimeout: soon\nsteps:\n  a: {uses: nothing@1, wiht: 1}\n  \
                b: {uses: http_request, with: {url: 5}, needs: [x, b]}\n  c: {uses: acme/score, if: \"(\"}\n";
    let mistakes = refused(text);
    let told: Vec<_> = mistakes.iter().map(|mistake| (mistake.line, mistake.code)).collect();
    let expected = [
        (2, "bad_name"),
        (3, "bad_duration"),
        (5, "unknown_plugin"),
        (5, "unknown_key"),
        (6, "input_refused"),
        (6, "unknown_step"),
        (6, "self_reference"),
        (7, "expression_syntax"),
    ];
    assert_eq!(told, expected, "{}", shown(&mistakes));
}

#[test]
fn a_warning_does_not_refuse() {
    let warnings = crate::support::accepted(&format!("secrets: [token]\n{}", in_step(""))).warnings;
    let told: Vec<_> = warnings.iter().map(|warning| (warning.code, warning.pointer.as_str())).collect();
    assert_eq!(told, [("unused_secret", "/secrets/0")]);
}
