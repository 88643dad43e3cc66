//! Tables in both directions.

use reipaz_plugin_csv::ReipazStep;
use reipaz_sdk::{Context, StepError, testing};
use serde_json::{Value, json};

fn run(input: Value) -> Result<Value, StepError> {
    Ok(serde_json::from_str(&testing::run::<ReipazStep>(Context::default(), &input.to_string())?)?)
}

fn parse(mut options: Value, text: &str) -> Result<Value, StepError> {
    options["action"] = json!("parse");
    options["text"] = json!(text);
    run(options)
}

fn write(mut options: Value, rows: Value) -> Result<Value, StepError> {
    options["action"] = json!("write");
    options["rows"] = rows;
    run(options)
}

#[test]
fn the_first_row_names_the_columns_and_cells_are_text() {
    let table = parse(json!({}), "zip,name\r\n007,\"Ana, B\"\n,\"say \"\"hi\"\"\"\n").expect("a table");
    assert_eq!(table["columns"], json!(["zip", "name"]));
    assert_eq!(table["rows"], json!([{"zip": "007", "name": "Ana, B"}, {"zip": "", "name": "say \"hi\""}]));
    assert_eq!(table["count"], 2);
}

#[test]
fn columns_keep_their_order_in_rows() {
    let output =
        testing::run::<ReipazStep>(Context::default(), r#"{"action":"parse","text":"z,a,m\n1,2,3\n"}"#);
    assert!(output.expect("a table").contains(r#"{"z":"1","a":"2","m":"3"}"#));
}

#[test]
fn without_a_header_rows_are_lists_or_have_given_names() {
    let lists = parse(json!({"header": false}), "1,2\n3,4\n").expect("a table");
    assert_eq!((&lists["rows"], &lists["columns"]), (&json!([["1", "2"], ["3", "4"]]), &json!([])));
    let named = parse(json!({"header": false, "columns": ["a", "b"]}), "1,2\n").expect("a table");
    assert_eq!(named["rows"], json!([{"a": "1", "b": "2"}]));
    let renamed = parse(json!({"columns": ["a", "b"]}), "x,x\n1,2\n").expect("a table");
    assert_eq!(renamed["rows"], json!([{"a": "1", "b": "2"}]));
}

#[test]
fn inference_reads_what_json_knows() {
    let table =
        parse(json!({"infer": true}), "a,b,c,d,e,f,g\n1,-2.5e3,true,,007,NaN,123456789012345678901\n")
            .expect("a table");
    assert_eq!(
        table["rows"][0],
        json!({"a": 1, "b": -2500.0, "c": true, "d": null, "e": "007", "f": "NaN", "g": "123456789012345678901"})
    );
}

#[test]
fn types_win_over_inference_and_say_where_they_do_not_fit() {
    let options = json!({"infer": true, "types": {"zip": "text", "n": "number", "ok": "boolean"}});
    let table = parse(options.clone(), "zip,n,ok\n12345,1,TRUE\n,,\n").expect("a table");
    assert_eq!(
        table["rows"],
        json!([{"zip": "12345", "n": 1, "ok": true}, {"zip": "", "n": null, "ok": null}])
    );

    let error = parse(options, "zip,n,ok\n1,1,true\n1,\"two\nlines\",true\n").expect_err("no number");
    assert_eq!(error.code, "csv_row");
    assert_eq!(error.details, Some(json!({"line": 3, "column": "n"})));
    assert!(error.message.starts_with("line 3, column n:"), "{error}");
    assert_eq!(
        parse(json!({"types": {"x": "number"}}), "a\n1\n").expect_err("no such").code,
        "csv_unknown_column"
    );
}

#[test]
fn a_row_of_another_length_names_its_line() {
    for text in ["a,b\n1,2\n3\n", "a,b\n1,2\n3,4,5\n"] {
        let error = parse(json!({}), text).expect_err("a ragged row");
        assert_eq!(
            (error.code.as_str(), error.details),
            ("csv_row", Some(json!({"line": 3, "column": null})))
        );
    }
    assert!(parse(json!({"header": false}), "1,2\n3\n").is_err());
}

#[test]
fn marks_delimiters_and_spaces() {
    let table = parse(json!({"delimiter": ";", "trim": true}), "\u{feff}a ; b\n 1;2 \n").expect("a table");
    assert_eq!(table["rows"], json!([{"a": "1", "b": "2"}]));
    assert_eq!(parse(json!({"delimiter": "\t"}), "a\tb\n1\t2\n").expect("a table")["count"], 1);
    for delimiter in ["", "::", "\"", "\n", "é"] {
        assert_eq!(
            parse(json!({"delimiter": delimiter}), "a\n").expect_err("refused").code,
            "bad_input",
            "{delimiter:?}"
        );
    }
}

#[test]
fn nothing_is_a_table_of_nothing() {
    assert_eq!(parse(json!({}), "").expect("a table"), json!({"columns": [], "rows": [], "count": 0}));
    assert_eq!(parse(json!({}), "a,b\n").expect("a table")["columns"], json!(["a", "b"]));
}

#[test]
fn two_columns_of_one_name_are_refused() {
    assert_eq!(parse(json!({}), "a,a\n1,2\n").expect_err("ambiguous").code, "csv_header");
}

#[test]
fn more_than_a_table_is_refused() {
    let many = "1\n".repeat(100_001);
    assert_eq!(parse(json!({"header": false}), &many).expect_err("too many").code, "csv_too_large");
    let wide = vec!["1"; 1_001].join(",");
    assert_eq!(parse(json!({"header": false}), &wide).expect_err("too wide").code, "csv_too_large");
}

#[test]
fn rows_are_written_in_the_order_of_their_columns() {
    let written = testing::run::<ReipazStep>(
        Context::default(),
        r#"{"action":"write","rows":[{"z":1,"a":"x,y"},{"a":null,"b":[1,{"c":2}],"z":true}]}"#,
    )
    .expect("text");
    let written: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(written["text"], "z,a,b\n1,\"x,y\",\ntrue,,\"[1,{\"\"c\"\":2}]\"\n");
    assert_eq!(written["count"], 2);
}

#[test]
fn columns_choose_and_order_and_refuse_what_they_do_not_name() {
    let rows = json!([{"a": 1, "b": 2}]);
    let written =
        write(json!({"columns": ["b", "a"], "delimiter": ";", "header": false}), rows.clone()).expect("text");
    assert_eq!(written["text"], "2;1\n");
    let error = write(json!({"columns": ["a"]}), rows).expect_err("b has no place");
    assert_eq!((error.code.as_str(), error.details), ("csv_row", Some(json!({"row": 1}))));
    assert_eq!(write(json!({"columns": ["a", "b"]}), json!([[1, 2]])).expect("text")["text"], "a,b\n1,2\n");
    assert!(write(json!({"columns": ["a", "b"]}), json!([[1]])).is_err());
}

#[test]
fn what_is_written_is_read_again() {
    let rows = json!([{"n": "1", "text": "a \"quoted\",\nline"}, {"n": "", "text": " spaces "}]);
    let text = write(json!({}), rows.clone()).expect("text")["text"].clone();
    assert_eq!(parse(json!({}), text.as_str().expect("text")).expect("a table")["rows"], rows);
}

#[test]
fn unknown_options_are_refused() {
    assert_eq!(parse(json!({"delimeter": ";"}), "a\n").expect_err("a typo").code, "bad_input");
    assert_eq!(run(json!({"action": "sort"})).expect_err("no such action").code, "bad_input");
}
