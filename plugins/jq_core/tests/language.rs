//! What the language is: jq's answers, what does not exist, and what mistakes say.

use proptest::prelude::*;
use reipaz_jq_core::{CompileError, Program, RunError, Val, read, write};

/// The filter's one value for an input, as JSON; its error in words otherwise.
fn eval(filter: &str, input: &str) -> Result<String, String> {
    let program = Program::compile(filter, &["$input"]).map_err(|error| error.to_string())?;
    let input = read(input).expect("the test's input is JSON");
    let value =
        program.run(std::slice::from_ref(&input), input.clone()).map_err(|error| error.to_string())?;
    write(&value).map_err(|error| error.to_string())
}

fn compile_error(filter: &str) -> CompileError {
    Program::compile(filter, &["$input"]).err().unwrap_or_else(|| panic!("{filter} compiles"))
}

#[test]
fn it_answers_as_jq_does() {
    for (filter, input, expected) in [
        (".", "{\"b\":1,\"a\":[null,true,\"x\"]}", "{\"b\":1,\"a\":[null,true,\"x\"]}"),
        (".a.b[1]", "{\"a\":{\"b\":[1,2]}}", "2"),
        ("$input.a", "{\"a\":7}", "7"),
        ("map(.x) | add", "[{\"x\":1},{\"x\":2.5}]", "3.5"),
        ("[.[] | select(. > 1)]", "[1,2,3]", "[2,3]"),
        ("to_entries | map(\"\\(.key)=\\(.value)\") | join(\"&\")", "{\"a\":1,\"b\":\"c\"}", "\"a=1&b=c\""),
        (
            "group_by(.k) | map({k: .[0].k, n: length})",
            "[{\"k\":1},{\"k\":2},{\"k\":1}]",
            "[{\"k\":1,\"n\":2},{\"k\":2,\"n\":1}]",
        ),
        ("sort_by(-.) | first", "[1,3,2]", "3"),
        ("with_entries(.value += 1)", "{\"a\":1}", "{\"a\":2}"),
        ("[paths]", "{\"a\":[1]}", "[[\"a\"],[\"a\",0]]"),
        ("[leaf_paths]", "{\"a\":[1]}", "[[\"a\",0]]"),
        ("reduce .[] as $x (0; . + $x)", "[1,2,3]", "6"),
        ("[limit(3; range(10))]", "null", "[0,1,2]"),
        ("first(range(5; 10))", "null", "5"),
        ("if .a then 1 elif .b then 2 else 3 end", "{\"b\":true}", "2"),
        (".a // \"none\"", "{\"a\":null}", "\"none\""),
        ("try error(\"x\") catch .", "null", "\"x\""),
        ("[.[] | tostring]", "[1,\"1\",[1]]", "[\"1\",\"1\",\"[1]\"]"),
        ("[.[] | tonumber]", "[\"1\",\"2.5\"]", "[1,2.5]"),
        ("unique_by(length)", "[\"a\",\"bb\",\"c\"]", "[\"a\",\"bb\"]"),
        ("flatten", "[1,[2,[3]]]", "[1,2,3]"),
        ("ascii_upcase | ltrimstr(\"A\")", "\"abc\"", "\"BC\""),
        ("[splits(\", *\")]", "\"a, b,c\"", "[\"a\",\"b\",\"c\"]"),
        ("split(\",\")", "\"a,b\"", "[\"a\",\"b\"]"),
        ("sub(\"(?<x>b+)\"; \"[\\(.x)]\")", "\"abbc\"", "\"a[bb]c\""),
        ("gsub(\"[aeiou]\"; \"\")", "\"education\"", "\"dctn\""),
        ("capture(\"(?<y>\\\\d+)-(?<m>\\\\d+)\")", "\"2024-05\"", "{\"y\":\"2024\",\"m\":\"05\"}"),
        ("[match(\"é(.)\"; \"g\").offset]", "\"aébéc\"", "[1,3]"),
        ("[scan(\"a(b)?\")]", "\"aab\"", "[[null],[\"b\"]]"),
        ("test(\"B\"; \"i\")", "\"abc\"", "true"),
        ("@csv", "[1,\"a\\\"b\",null,true]", "\"1,\\\"a\\\"\\\"b\\\",,true\""),
        ("@tsv", "[1,\"a\\tb\"]", "\"1\\ta\\\\tb\""),
        ("@base64 | [., @base64d]", "\"hé\"", "[\"aMOp\",\"hé\"]"),
        ("@uri \"q=\\(.)\"", "\"a&b\"", "\"q=a%26b\""),
        ("@html", "\"<a href='x'>\"", "\"&lt;a href=&#39;x&#39;&gt;\""),
        ("@sh", "[\"a b\",\"it's\"]", "\"'a b' 'it'\\\\''s'\""),
        ("@json", "{\"a\":1}", "\"{\\\"a\\\":1}\""),
        ("tojson | fromjson", "{\"a\":[1]}", "{\"a\":[1]}"),
        ("INDEX(.id)", "[{\"id\":1},{\"id\":2}]", "{\"1\":{\"id\":1},\"2\":{\"id\":2}}"),
        ("[.[] | IN(1, 2)]", "[1,3]", "[true,false]"),
        ("pow(2; 10)", "null", "1024"),
        ("[.[] | floor, ceil, round]", "[1.5]", "[1,2,2]"),
        ("sqrt", "16", "4"),
        ("10 / 4 * 2", "null", "5"),
        ("todate", "1425599507", "\"2015-03-05T23:51:47Z\""),
        ("fromdate", "\"2015-03-05T23:51:47Z\"", "1425599507"),
        ("strptime(\"%d %b %Y\") | mktime", "\"05 Mar 2015\"", "1425513600"),
        ("strftime(\"%A, %B %d, %Y\")", "1425599507", "\"Thursday, March 05, 2015\""),
        ("gmtime", "1425599507", "[2015,2,5,23,51,47,4,63]"),
        (
            "[.[] | type]",
            "[null,true,1,\"a\",[],{}]",
            "[\"null\",\"boolean\",\"number\",\"string\",\"array\",\"object\"]",
        ),
        ("walk(if type == \"number\" then . + 1 else . end)", "[1,[2]]", "[2,[3]]"),
        ("transpose", "[[1,2],[3,4]]", "[[1,3],[2,4]]"),
        ("del(.a)", "{\"a\":1,\"b\":2}", "{\"b\":2}"),
        ("limit(1; .[] | select(. == 2))", "[1,2]", "2"),
        ("def f(x): x * 2; f(.)", "4", "8"),
        ("[recurse(if . < 3 then . + 1 else empty end)]", "1", "[1,2,3]"),
    ] {
        assert_eq!(eval(filter, input).as_deref(), Ok(expected), "{filter} of {input}");
    }
}

#[test]
fn numbers_keep_their_digits() {
    for number in ["12345678901234567890", "0.1", "1e100", "-7", "3000000000", "1.10"] {
        assert_eq!(eval(".", number).as_deref(), Ok(number));
    }
    assert_eq!(eval(". + 1", "9007199254740993").as_deref(), Ok("9007199254740994"));
}

#[test]
fn what_reaches_outside_does_not_exist() {
    for filter in [
        "env",
        "$ENV",
        "$ENV.PATH",
        "env.PATH",
        "now",
        "input",
        "inputs",
        "halt",
        "halt_error",
        "halt_error(1)",
        "debug",
        "debug(\"x\")",
        "stderr",
        "localtime",
        "strflocaltime(\"%H\")",
        "input_filename",
        "input_line_number",
        "$__prog_args",
        "get_search_list",
        "getpath([\"a\"]) | now",
        "modulemeta",
        "import \"a\" as a; .",
    ] {
        compile_error(filter);
    }
}

#[test]
fn an_unknown_variable_or_filter_is_named_with_its_place() {
    let error = compile_error(".a | nonsense(1)");
    assert_eq!((error.offset, error.message.as_str()), (5, "there is no filter `nonsense`"));
    let error = compile_error("$inptu.a");
    assert!(error.message.contains("`$inptu`"), "{error}");
}

#[test]
fn a_filter_that_does_not_parse_says_where() {
    for filter in [".a +", "map(.a", "{a: }", "'x'", "if . then 1", ""] {
        let error = compile_error(filter);
        assert!(error.offset <= filter.len(), "{filter}: {error}");
        assert!(error.message.starts_with("expected "), "{filter}: {error}");
    }
    assert_eq!(compile_error(".a +").offset, 4);
}

#[test]
fn exactly_one_value_is_needed() {
    let run = |filter: &str| Program::compile(filter, &[]).expect("compiles").run(&[], Val::Null).map(|_| ());
    assert_eq!(run("empty"), Err(RunError::NoResult));
    assert_eq!(run("1, 2"), Err(RunError::ManyResults));
    assert_eq!(run("1, error(\"late\")"), Err(RunError::Failed("late".to_owned())));
    assert_eq!(run("[1, 2]"), Ok(()));
}

#[test]
fn a_failure_says_what_failed() {
    let error = eval(".a.b", "{\"a\":[1]}").expect_err("an array has no key");
    assert!(error.contains("[1]"), "{error}");
    assert_eq!(eval("error(\"out of stock\")", "null").expect_err("raised"), "out of stock");
}

#[test]
fn what_json_cannot_say_is_refused() {
    for filter in ["nan", "infinite", "-infinite", "{(1): 2}", "\"a\" | tobytes"] {
        assert!(eval(filter, "null").is_err(), "{filter}");
    }
}

proptest! {
    /// Dates agree with jiff over nine thousand years.
    #[test]
    fn dates_agree_with_jiff(seconds in -62_135_596_800i64..253_402_300_799) {
        let time = jiff::Timestamp::from_second(seconds).expect("in range");
        prop_assert_eq!(eval("todate", &seconds.to_string()), Ok(format!("\"{time}\"")));
        prop_assert_eq!(eval("todate | fromdate", &seconds.to_string()), Ok(seconds.to_string()));
        prop_assert_eq!(eval("gmtime | mktime", &seconds.to_string()), Ok(seconds.to_string()));
        let format = "%Y-%m-%d %H:%M:%S %j %U %W %G-W%V-%u %w %e %I %p %a %b";
        let expected = time.strftime(format).to_string();
        prop_assert_eq!(eval(&format!("strftime({format:?})"), &seconds.to_string()), Ok(format!("{expected:?}")));
    }

    /// Whatever is read is written as serde_json writes it, up to the text of numbers.
    #[test]
    fn json_survives(text in json_text()) {
        let through = eval(".", &text).expect("JSON");
        let expected: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&through).expect("JSON"), expected);
    }
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .prop_map(|value| value.to_string())
}
