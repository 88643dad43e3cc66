//! The embedded engine's HTTP interface, as any client of ClickHouse sees it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use clickhouse::{Client, error::Error};
use reipaz_store::library;

use crate::support::{dir, runtime};

/// An engine's process of the test's own.
struct Engine {
    child: Child,
    url: String,
}

impl Engine {
    fn start(name: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reipaz-clickhouse"))
            .arg("--library")
            .arg(library::find(None).expect("these tests need the real engine"))
            .arg("--dir")
            .arg(dir(name))
            .env("REIPAZ_CLICKHOUSE_TOKEN", "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        let port = ready["serving"]["port"].as_u64().unwrap_or_else(|| panic!("{line}"));
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }

    fn client(&self) -> Client {
        Client::default().with_url(&self.url).with_password("secret")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Closing its standard input is what ends it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

async fn text(client: &Client, query: &str) -> Result<String, Error> {
    let bytes = client.query_raw(query).fetch_bytes("TSVRaw")?.collect().await?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

#[test]
fn only_who_knows_the_token_is_answered() {
    let engine = Engine::start("interface-token");
    runtime().block_on(async {
        for client in [
            Client::default().with_url(&engine.url),
            Client::default().with_url(&engine.url).with_password("secreT"),
            Client::default().with_url(&engine.url).with_password("secret2"),
            Client::default().with_url(&engine.url).with_access_token("x"),
        ] {
            let error = text(&client, "SELECT 1").await.unwrap_err();
            assert!(error.to_string().contains("Code: 516"), "{error}");
        }
        assert_eq!(text(&engine.client(), "SELECT 1").await.unwrap(), "1");
        let bearer = Client::default().with_url(&engine.url).with_access_token("secret");
        assert_eq!(text(&bearer, "SELECT 1").await.unwrap(), "1");
    });
}

#[test]
fn statements_do_not_see_each_others_settings() {
    let engine = Engine::start("interface-settings");
    runtime().block_on(async {
        let client = engine.client();
        let threads = "SELECT getSetting('max_threads'), currentDatabase()";
        let plain = text(&client, threads).await.unwrap();

        // Statements that change their session, and requests that ask for another.
        text(&client, "SET max_threads = 7").await.unwrap();
        text(&client, "USE system").await.unwrap();
        text(&client, "/* x */ SET max_threads = 7").await.unwrap();
        let other = client.clone().with_setting("max_threads", "5").with_database("system");
        assert_eq!(text(&other, threads).await.unwrap(), "5\tsystem");

        // The next one finds neither.
        assert_eq!(text(&client, threads).await.unwrap(), plain);
        let error = text(&client.clone().with_setting("no_such_setting", "1"), "SELECT 1").await.unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
        let error = text(&client.clone().with_database("nowhere"), "SELECT 1").await.unwrap_err();
        assert!(error.to_string().contains("UNKNOWN_DATABASE"), "{error}");
        let readonly = client.clone().with_setting("readonly", "1");
        let error = text(&readonly, "CREATE TABLE t (a Int8) ENGINE = Memory").await.unwrap_err();
        assert!(error.to_string().contains("READONLY"), "{error}");
    });
}

#[test]
fn more_settings_than_are_kept_still_work() {
    let engine = Engine::start("interface-many");
    runtime().block_on(async {
        for threads in 1..=20 {
            let client = engine.client().with_setting("max_threads", threads.to_string());
            assert_eq!(text(&client, "SELECT getSetting('max_threads')").await.unwrap(), threads.to_string());
        }
    });
}

#[test]
fn parameters_are_values() {
    let engine = Engine::start("interface-parameters");
    runtime().block_on(async {
        for value in ["it's", "a\tb\nc\r\\N\0", "'; DROP TABLE t; --", "日本 🦀", "", "\\", "{x:String}"]
        {
            let query = engine.client().query_raw("SELECT {x:String}").param("x", value);
            assert_eq!(query.fetch_one::<String>().await.unwrap(), value);
        }
    });
}

#[test]
fn data_of_an_insert_is_taken_byte_for_byte() {
    let engine = Engine::start("interface-data");
    runtime().block_on(async {
        let client = engine.client();
        client
            .query_raw("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
            .execute()
            .await
            .unwrap();
        // Texts that begin and end as a statement would, and every byte.
        let every: Vec<u8> = (0..=255).collect();
        let samples: [&[u8]; 9] = [
            b"\n\n\n",
            b"",
            b" \t\r\n",
            b"SETTINGS max_threads = 1",
            b"; DROP TABLE t;\n\n",
            b"-- x",
            b"/* x",
            b"'\"`",
            &every,
        ];
        for sample in samples {
            for number in [0_u32, 0x0A0A_0A0A, 0x2020_2020, 0x5445_5320] {
                let mut data = number.to_le_bytes().to_vec();
                // Lengths below 128 are one byte, else two.
                match u8::try_from(sample.len()) {
                    Ok(length @ 0..=127) => data.push(length),
                    _ => data.extend([(sample.len() % 128) as u8 | 0x80, (sample.len() / 128) as u8]),
                }
                data.extend(sample);
                data = data.repeat(3);
                let mut insert = client.insert_formatted_with("INSERT INTO t FORMAT RowBinary");
                insert.send(data.into()).await.unwrap();
                insert.end().await.unwrap();
                let count = format!(
                    "SELECT count() FROM t WHERE n = {number} AND hex(s) = '{}'",
                    sample.iter().map(|byte| format!("{byte:02X}")).collect::<String>()
                );
                assert_eq!(text(&client, &count).await.unwrap(), "3", "{sample:?} {number}");
            }
        }
        assert_eq!(text(&client, "SELECT count() FROM t").await.unwrap(), (9 * 4 * 3).to_string());
    });
}

#[test]
fn an_insert_without_data_or_with_broken_data_is_an_error_and_no_more() {
    let engine = Engine::start("interface-broken");
    runtime().block_on(async {
        let client = engine.client();
        client.query_raw("CREATE TABLE t (s String) ENGINE = MergeTree ORDER BY s").execute().await.unwrap();
        let insert = async |data: &'static [u8]| {
            let mut insert = client.insert_formatted_with("INSERT INTO t FORMAT RowBinary");
            insert.send(data.into()).await.unwrap();
            insert.end().await
        };
        assert!(insert(b"\xFFabc").await.unwrap_err().to_string().contains("CANNOT_READ_ALL_DATA"));
        insert(b"\x01a").await.unwrap();
        assert_eq!(text(&client, "SELECT count() FROM t").await.unwrap(), "1");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_engine_cannot_leave_its_directory() {
    let engine = Engine::start("interface-confined");
    runtime().block_on(async {
        let client = engine.client();
        for query in [
            "SELECT file('/etc/passwd')",
            "SELECT * FROM file('/etc/passwd', LineAsString)",
            "SELECT 1 INTO OUTFILE '/tmp/reipaz-must-not-exist'",
            "INSERT INTO FUNCTION file('/tmp/reipaz-must-not-exist', TSV, 'a UInt8') SELECT 1",
        ] {
            let error = text(&client, query).await.unwrap_err();
            assert!(error.to_string().contains("Permission denied"), "{query}: {error}");
        }
        assert!(!std::path::Path::new("/tmp/reipaz-must-not-exist").exists());
    });
}
