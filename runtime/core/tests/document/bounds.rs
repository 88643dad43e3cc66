//! Bounds: whatever the text, the answer comes soon, on an ordinary stack, and names the bound.

use std::{fmt::Write as _, time::Duration};

use proptest::prelude::*;
use reipaz_core::{
    document::{MAX_DOCUMENT_BYTES, check},
    expression::{Expression, MAX_EXPRESSION_BYTES},
};

use crate::support::{Installed, accepted, refused};

fn only_code(text: &str) -> &'static str {
    let mistakes = refused(text);
    assert_eq!(mistakes.len(), 1, "{}", crate::support::shown(&mistakes));
    mistakes[0].code
}

fn with(value: &str) -> String {
    format!("reipaz: 1\nname: w\nsteps:\n  a:\n    uses: acme/score\n    with: {value}\n")
}

#[test]
fn a_document_is_bounded_in_bytes_steps_and_depth() {
    assert_eq!(only_code(&"a".repeat(MAX_DOCUMENT_BYTES + 1)), "too_large");
    let steps = |count: usize| {
        (0..count).fold("reipaz: 1\nname: w\nsteps:\n".to_owned(), |mut text, step| {
            let _ = writeln!(text, "  s{step}: {{uses: acme/score}}");
            text
        })
    };
    assert_eq!(only_code(&steps(1_001)), "too_many_steps");
    assert_eq!(accepted(&steps(1_000)).plan.steps.len(), 1_000);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    // The root, `steps` and `a` are three levels.
    accepted(&with(&nested(14)));
    assert_eq!(only_code(&with(&nested(15))), "too_deep");
    assert_eq!(only_code(&"[".repeat(100_000)), "too_deep");
    assert_eq!(only_code(&"- ".repeat(100_000)), "too_deep");
    assert_eq!(only_code(&"{\"a\":".repeat(50_000)), "too_deep");
    assert_eq!(only_code(&"{a: ".repeat(50_000)), "too_deep");
}

#[test]
fn an_alias_bomb_is_refused_and_honest_aliases_are_not() {
    let mut bomb = "reipaz: 1\nname: w\nui:\n  a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ["b", "c", "d", "e", "f", "g"].into_iter().zip(["a", "b", "c", "d", "e", "f"]) {
        let _ = writeln!(bomb, "  {name}: &{name} [{}]", vec![format!("*{of}"); 9].join(", "));
    }
    assert_eq!(only_code(&bomb), "too_large");
    let shared = "reipaz: 1\nname: w\nsteps:\n  a: {uses: acme/score, retry: &r {attempts: 2}}\n  \
                  b: {uses: acme/score, retry: *r}\n";
    assert_eq!(accepted(shared).plan.steps[1].retry.attempts, 2);
}

#[test]
fn as_much_as_is_allowed_is_accepted_and_one_more_is_not() {
    let padded = |length: usize| {
        let text = with("1");
        let spaces = " ".repeat(length - text.len() - 1);
        format!("{text}{spaces}\n")
    };
    accepted(&padded(MAX_DOCUMENT_BYTES));
    assert_eq!(only_code(&padded(MAX_DOCUMENT_BYTES + 1)), "too_large");

    let input =
        |parts: usize| format!("input: {{allOf: [{}]}}\n{}", vec!["true"; parts].join(", "), with("1"));
    accepted(&input(9_999));
    assert_eq!(only_code(&input(10_000)), "bad_schema");

    let grants = |count: usize| {
        let list = vec!["GET shop.example"; count].join(", ");
        format!("{}    grants: {{http: [{list}]}}\n", with("1"))
    };
    let granted = accepted(&grants(100)).plan.steps[0].grants.clone();
    assert_eq!(granted.expect("it narrows its grants")["http"].len(), 100);
    assert_eq!(only_code(&grants(101)), "out_of_range");

    let cases = |count: usize| {
        let list: Vec<_> = (0..count).map(|case| format!("code_{case}: never")).collect();
        format!("{}    retry: {{by_error: {{{}}}}}\n", with("1"), list.join(", "))
    };
    let plain = accepted(&with("1")).plan.steps[0].retry.by_error.len();
    assert_eq!(accepted(&cases(32)).plan.steps[0].retry.by_error.len(), plain + 32);
    assert_eq!(only_code(&cases(33)), "out_of_range");
}

#[test]
fn steps_that_run_on_a_failure_count_as_steps() {
    let steps = |main: usize, of_failure: usize| {
        let list = |name: &str, count: usize| {
            (0..count).map(|step| format!("  {name}{step}: {{uses: acme/score}}\n")).collect::<String>()
        };
        let (main, of_failure) = (list("s", main), list("  f", of_failure));
        format!("reipaz: 1\nname: w\nsteps:\n{main}on_failure:\n  steps:\n{of_failure}")
    };
    assert_eq!(accepted(&steps(600, 400)).plan.steps.len(), 1_000);
    let mistakes = refused(&steps(600, 401));
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].code, mistakes[0].pointer.as_str()), ("too_many_steps", "/on_failure/steps/f0"));
    assert!(mistakes[0].message.ends_with("not 1001"), "{}", mistakes[0]);
}

#[test]
fn durations_may_be_as_short_and_as_long_as_their_bounds() {
    let timeouts = |at: &str| accepted(&format!("{}    {at}\n", with("1"))).plan.steps[0].clone();
    assert_eq!(timeouts("timeout: 1ms").timeout, Duration::from_millis(1));
    assert_eq!(timeouts("timeout: 7d").timeout, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(timeouts("retry: {within: 0s}").retry.within, Duration::ZERO);
    assert_eq!(timeouts("retry: {within: 30d}").retry.within, Duration::from_secs(30 * 24 * 3600));
}

#[test]
fn aliases_weigh_as_much_as_what_they_stand_for() {
    // An alias to each of these stands four times: what they weigh without the long text in them is this.
    for (value, weight) in [("TEXT", 4), ("[TEXT]", 8), ("[TEXT, 1, ~]", 24), ("{key: TEXT}", 15)] {
        let document = |length: usize| {
            let value = value.replace("TEXT", &"x".repeat(length));
            format!("{}ui: {{is: &a {value}, again: [*a, *a, *a, *a]}}\n", with("1"))
        };
        let most = MAX_DOCUMENT_BYTES / 4 - weight;
        let ui = accepted(&document(most)).ui.expect("it has one");
        assert_eq!(ui["again"], serde_json::json!([ui["is"], ui["is"], ui["is"], ui["is"]]));
        assert_eq!(only_code(&document(most + 1)), "too_large", "{value}");
    }
}

#[test]
fn aliases_nest_as_deep_as_what_they_stand_for() {
    // The root, `ui` and `at` are three levels, what is named has five: nine more are the most.
    for named in ["[1, [[[[]]]], {}]", "{a: {b: {c: {d: {}}}}, z: 1}", "[{a: [{b: [1]}]}]"] {
        let document = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!("{}ui: {{named: &n {named}, at: {{in: {open}*n{close}}}}}\n", with("1"))
        };
        accepted(&document(9));
        let mistakes = refused(&document(10));
        assert_eq!((mistakes.len(), mistakes[0].code), (1, "too_deep"), "{named}");
        let width = mistakes[0].end_column - mistakes[0].column;
        assert_eq!((mistakes[0].line, width), (7, 2), "the alias itself");
    }
}

#[test]
fn a_long_chain_of_steps_is_fine() {
    let mut text = "reipaz: 1\nname: w\nsteps:\n  s0: {uses: acme/score}\n".to_owned();
    for step in 1..1_000 {
        let _ = writeln!(text, "  s{step}: {{uses: acme/score, needs: [s{}]}}", step - 1);
    }
    let plan = accepted(&text).plan;
    assert_eq!(&*plan.steps[999].name, "s999");
    let circle = text.replace("s0: {uses: acme/score}", "s0: {uses: acme/score, needs: [s999]}");
    assert_eq!(only_code(&circle), "cycle");
}

#[test]
fn schemas_that_refer_to_themselves_end() {
    for schema in [
        "{$ref: \"#\"}",
        "{allOf: [{$ref: \"#\"}]}",
        "{$defs: {a: {$ref: \"#/$defs/b\"}, b: {$ref: \"#/$defs/a\"}}, $ref: \"#/$defs/a\"}",
        "{not: {$ref: \"#\"}}",
        "{anyOf: [{$ref: \"#\"}, {type: string}]}",
        "{if: {$ref: \"#\"}, then: {type: string}}",
        "{properties: {a: {$ref: \"#\"}}}",
        "{$dynamicRef: \"#x\", $dynamicAnchor: x}",
        "{dependentSchemas: {a: {$ref: \"#\"}}}",
    ] {
        if let Ok(checked) = check(&format!("input: {schema}\n{}", with("1")), &Installed) {
            let _ = checked.plan.check_input(&serde_json::json!({"a": {"a": 1}}));
        }
    }
}

#[test]
fn expressions_are_bounded_before_they_are_parsed() {
    let parse = |text: &str| Expression::parse(text).map(drop).map_err(|error| error.kind);
    let most = MAX_EXPRESSION_BYTES;
    for hostile in [
        "(".repeat(most),
        "[".repeat(most),
        "{a:".repeat(most / 3),
        "-".repeat(most),
        "\"\\(".repeat(most / 3),
        "if ".repeat(most / 3),
        "try ".repeat(most / 4),
        "def f:".repeat(most / 6),
        "reduce ".repeat(most / 7),
        "label $a|".repeat(most / 9),
        ". as $a|".repeat(most / 8),
        "1|".repeat(most / 2),
        "1=".repeat(most / 2),
        "1//".repeat(most / 3),
        "1+".repeat(most / 2),
        "1,".repeat(most / 2),
        "1 and ".repeat(most / 6),
        ".a".repeat(most),
        ". as [$a,".repeat(most / 9),
        ". as {a:".repeat(most / 8),
        "f(".repeat(most / 2),
        "?".repeat(most),
        ".[".repeat(most / 2),
    ] {
        assert!(parse(&hostile).is_err(), "{}", &hostile[..20]);
    }
    // As much as is allowed of what recurses, on the stack of a test thread.
    for (head, tail) in
        [("-", "1"), ("if 1 then 1 else ", "1"), ("try ", "1"), ("1|", "1"), ("1+", "1"), (". as $a|", "1")]
    {
        for count in 1..=256 {
            let _ = parse(&format!(
                "{}{tail}{}",
                head.repeat(count),
                if head.starts_with("if") { " end".repeat(count) } else { String::new() }
            ));
        }
    }
    let nested = format!("{}1{}", "(-".repeat(31), ")".repeat(31));
    assert_eq!(parse(&nested), Ok(()));
}

#[test]
fn a_hundred_mistakes_are_enough() {
    let mut text = "reipaz: 1\nname: w\nsteps:\n  a:\n    uses: acme/score\n".to_owned();
    for key in 0..500 {
        let _ = writeln!(text, "    unknown_{key}: 1");
    }
    assert_eq!(refused(&text).len(), 100);
    let secrets: Vec<_> = (0..500).map(|secret| format!("s{secret}")).collect();
    let unused = format!("{}secrets: [{}]\n", with("1"), secrets.join(", "));
    assert_eq!(accepted(&unused).warnings.len(), 100);
}

/// Pieces that documents are made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "reipaz: 1\n",
        "name: w\n",
        "steps:\n",
        "  a:\n",
        "    uses: acme/score\n",
        "    with: ",
        "    if: ",
        "\t",
        " ",
        "\n",
        "- ",
        "? ",
        ": ",
        ", ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "|\n",
        ">\n",
        "&a ",
        "*a",
        "!!str ",
        "# c\n",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "${ ",
        " }",
        "$steps.a",
        "$secrets.x",
        ".output",
        "[0]",
        "always",
        "é",
        "\u{feff}",
        "\r\n",
        "\\u00e9",
        "\\",
        "1e999",
        "0x",
        ".inf",
        "~",
        "<<: *a\n",
        "needs: [a]\n",
        "\0",
        "\u{2028}",
        "reduce . as $x (",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(text in prop_oneof![pieces(), "\\PC{0,200}", "[ -~\\n]{0,300}"]) {
        if let Err(mistakes) = check(&text, &Installed) {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!((mistake.line, mistake.column) <= (mistake.end_line, mistake.end_column));
                prop_assert!(mistake.line >= 1 && mistake.column >= 1);
            }
        }
    }

    #[test]
    fn a_damaged_document_does_not_panic(at in 0..400_usize, with in "\\PC{0,3}", drop in 0..5_usize) {
        let text = "reipaz: 1\nname: w\ninput: {type: object}\nsecrets: [s]\nsteps:\n  a:\n    uses: http_request@1\n    \
                    with: {url: \"http://é/${ $input.x | length }\", headers: {a: '${ $secrets.s }'}}\n    retry: {attempts: 2}\n  \
                    b:\n    uses: acme/score\n    if: ($steps.a.output // [])[0] == \"x\"\n    with: |\n      ${ $steps.a.output }\n\
                    output: [\"${ .steps.b.output }\"]\n";
        let start = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (start + drop..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        let _ = check(&format!("{}{with}{}", &text[..start], &text[end..]), &Installed);
    }
}
