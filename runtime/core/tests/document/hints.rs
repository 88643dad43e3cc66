//! What is told to do about a mistake.

use crate::{
    refused::in_step,
    support::{refused, shown},
};

/// The hint of the only mistake.
#[track_caller]
fn hint(text: &str) -> Option<String> {
    let mistakes = refused(text);
    assert_eq!(mistakes.len(), 1, "{}", shown(&mistakes));
    mistakes[0].hint.clone()
}

#[test]
fn a_mistake_is_shown_with_its_place_its_code_and_its_hint() {
    let mistakes = refused(&in_step("    wiht: 1\n    timeout: 0s\n"));
    assert_eq!(mistakes[0].to_string(), "6:5: a step has no key `wiht` [unknown_key] (did you mean `with`?)");
    assert_eq!(mistakes[1].to_string(), "7:14: `timeout` is at least 1ms and at most 7d [out_of_range]");
}

#[test]
fn a_word_is_taken_for_another_if_a_third_of_it_differs() {
    for (word, meant) in [
        ("nedes", Some("needs")),
        ("needsx", Some("needs")),
        ("neds", Some("needs")),
        ("NEEDS", Some("needs")),
        ("tmieuot", Some("timeout")),
        ("timexyt", Some("timeout")),
        ("on_failuer_x", Some("on_failure")),
        // One of five letters may differ, two of six or seven.
        ("nexxs", None),
        ("nxds", None),
        ("endes", None),
        ("nxxdsx", None),
        ("txxxout", None),
    ] {
        let hint = hint(&in_step(&format!("    {word}: 1\n"))).expect("there always is one");
        match meant {
            Some(meant) => assert_eq!(hint, format!("did you mean `{meant}`?"), "{word}"),
            None => assert!(hint.starts_with("a step has `uses`, "), "{word}: {hint}"),
        }
    }
}

#[test]
fn long_words_are_nobodys_typing_mistake() {
    let needs = |step: &str, needed: &str| {
        let text = format!(
            "reipaz: 1\nname: w\nsteps:\n  {step}: {{uses: acme/score}}\n  b: {{uses: acme/score, needs: [{needed}]}}\n"
        );
        hint(&text).expect("there are few steps")
    };
    let long = "a".repeat(64);
    assert_eq!(needs(&long, &format!("{}b", &long[1..])), format!("did you mean `{long}`?"));
    assert_eq!(needs(&long, &format!("{long}b")), format!("the steps are `{long}` and `b`"));
}

#[test]
fn up_to_twenty_steps_are_listed() {
    let steps = |count: usize| {
        let list: String = (0..count).map(|step| format!("  s{step}: {{uses: acme/score}}\n")).collect();
        format!("reipaz: 1\nname: w\nsteps:\n{list}    \noutput: ${{ $steps.elsewhere.output }}\n")
    };
    let listed = hint(&steps(20)).expect("they are listed");
    assert!(
        listed.starts_with("the steps are `s0`, `s1`, `s10`, ") && listed.ends_with(" and `s9`"),
        "{listed}"
    );
    assert_eq!(hint(&steps(21)), None);
}

#[test]
fn a_name_is_made_of_what_is_none() {
    for (text, name) in [
        ("my orders", Some("my_orders")),
        ("My -- Orders", Some("my_orders")),
        (" --my orders!! ", Some("my_orders")),
        ("_my_orders", Some("my_orders")),
        ("myOrders2", Some("my_orders2")),
        ("my__orders!", Some("my_orders")),
        ("2nd", None),
        ("é", None),
    ] {
        let hint = hint(&in_step("").replace("name: w", &format!("name: \"{text}\"")));
        assert_eq!(hint, name.map(|name| format!("write `{name}`")), "{text}");
    }
}
