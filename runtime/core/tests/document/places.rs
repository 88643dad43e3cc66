//! Where a mistake inside a value stands: the very word, however the value is written.

use crate::refused::{case, in_step};

/// A mistake in the value of `x` in a step's `with`.
#[track_caller]
fn in_value(value: &str) {
    case(
        &in_step(&format!("    with:\n      x: {value}\n")),
        "/steps/a/with/x",
        "unknown_name",
        "did you mean `$input`?",
    );
}

#[test]
fn quotes_and_backslashes_that_mean_nothing_in_a_string_move_nothing() {
    in_value("it's ${ «$inptu» }");
    in_value("it''s \\x41 ${ «$inptu» }");
    in_value("'a\\nb \\x41 ${ «$inptu» }'");
    in_value("'it''s ${ «$inptu» }'");
    in_value("\"it's ''${ «$inptu» }\"");
    in_value("|\n        it''s \\n ${ «$inptu» }\n");
}

#[test]
fn escapes_are_longer_in_the_text_than_what_they_stand_for() {
    for escape in [
        "\\n",
        "\\t",
        "\\\"",
        "\\\\",
        "\\e",
        "\\x41",
        "\\xe9",
        "\\u0041",
        "\\u00e9",
        "\\u20ac",
        "\\U0001F600",
        "\\N",
        "\\_",
        "\\L",
        "\\P",
    ] {
        in_value(&format!("\"{escape}${{ «$inptu» }}{escape}\""));
        in_value(&format!("\"é{escape}{escape} ${{ «$inptu» }}\""));
    }
}

#[test]
fn json_writes_one_character_as_a_pair_of_escapes() {
    case(
        "{\"reipaz\": 1, \"name\": \"w\", \"steps\": {\"a\": {\"uses\": \"acme/score\",\n \
         \"with\": {\"x\": \"\\ud83d\\ude00\\/${ «$inptu» }\"}}}}",
        "/steps/a/with/x",
        "unknown_name",
        "did you mean `$input`?",
    );
}

#[test]
fn strings_over_several_lines() {
    for value in [
        "\"a\\\n        ${ «$inptu» }\"",
        "\"a\\\r\n        ${ «$inptu» }\"",
        "\"a\n        b ${ «$inptu» }\"",
        "\"a  \n\n\n        b ${ «$inptu» }\"",
        "\"a\t\n        b ${ «$inptu» }\"",
        "'a\n        b ${ «$inptu» }'",
        "a\n        b ${ «$inptu» }",
        "a ${\n        «$inptu»\n        }",
        "'a ${\n        «$inptu»\n        }'",
        "\"a ${\n        «$inptu»\n        }\"",
        "|\n        a ${\n        «$inptu»\n        }\n",
        "|\n        a ${\n\n\n          «$inptu» }\n",
        "|\r\n        a\r\n        b ${\r\n        «$inptu» }\r\n",
        ">\n        a ${\n        «$inptu»\n        }\n",
        ">\n        a\n\n        b ${ «$inptu»\n        }\n",
        "|\n\n        ${ «$inptu» }\n",
        ">-\n\n\n        a ${ «$inptu» }\n",
        "&anchor |\n\n        ${ «$inptu» }\n",
        "|2\n          a ${ «$inptu» }\n",
        "&anchor |2\n          a ${ «$inptu» }\n",
        "| # a remark\n        a ${ «$inptu» }\n",
    ] {
        in_value(value);
    }
}

#[test]
fn where_it_cannot_be_told_the_whole_string_is_shown() {
    in_value("&anchor «|-\n        | ${ $inptu }»\n");
}

#[test]
fn an_error_is_shown_where_it_stands_in_its_expression() {
    case(
        &in_step("    with: {x: \"é ${ $input.a } ${ [1, «$error».code] }\"}\n"),
        "/steps/a/with/x",
        "unknown_name",
        "only inside an `on_failure`",
    );
}

#[test]
fn items_that_are_not_strings() {
    let item = |value: &str, words: &str| {
        case(
            &in_step(&format!("    needs:{value}    timeout: 5s\n")),
            "/steps/a/needs/0",
            "wrong_type",
            words,
        );
    };
    item(" [«{b: 1}»]\n", "not an object");
    item(" [ &n «[b]» ]\n", "not a list");
    item("\n      - «b: 1»\n", "not an object");
    item("\n      - «- b\n        - c»\n\n", "not a list");
    item("\n      - «~»\n", "not nothing");
    item("\n      -«»\n", "not nothing");
    item(" [ !!int «5» ]\n", "not a number");
}

#[test]
fn a_schema_is_followed_into_its_lists() {
    case(
        &format!("input: {{allOf: [{{type: string}}, {{type: «strin»}}]}}\n{}", in_step("")),
        "/input/allOf/1/type",
        "bad_schema",
        "strin",
    );
}

#[test]
fn a_tab_behind_spaces_is_found() {
    case("reipaz: 1\nsteps:\n  a:\n  «\t»uses: x\n", "", "tab", "spaces");
}
