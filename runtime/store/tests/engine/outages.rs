//! What happens without a ClickHouse, with a broken one, and when it comes back.

use std::{fs, path::Path, time::Duration};

use reipaz_store::{Status, Store, StoreConfig, StoreError, Target, library};

use crate::support::{History, LONG, config, dir, ready, runtime, sql};

fn with_library(config: StoreConfig, path: &Path) -> StoreConfig {
    let Target::Embedded { dir, child, .. } = config.target else { panic!("an embedded one") };
    let target = Target::Embedded { library: Some(path.to_path_buf()), dir, child };
    let reconnect_max = Duration::from_millis(200);
    StoreConfig { target, reconnect_max, ..config }
}

async fn settled(store: &Store) -> Status {
    let mut status = store.status_watch();
    let settled = status.wait_for(|status| !matches!(status, Status::Starting));
    tokio::time::timeout(LONG, settled).await.expect("settles").unwrap().clone()
}

fn absent(status: &Status) -> &str {
    match status {
        Status::Absent { why } => why,
        other => panic!("{other:?}"),
    }
}

/// Kills the engine as nothing but the kernel can, and waits until the store has noticed.
async fn kill_engine(store: &Store) {
    let process = store.engine_process().expect("it runs").to_string();
    let mut status = store.status_watch();
    status.borrow_and_update();
    let killed = std::process::Command::new("kill").args(["-9", &process]).status().unwrap();
    assert!(killed.success());
    let noticed = status.wait_for(|status| !status.is_ready());
    tokio::time::timeout(LONG, noticed).await.expect("notices").unwrap();
}

#[test]
fn a_killed_engine_comes_back_with_all_it_had_answered_for() {
    runtime().block_on(async {
        // Given a store that has rows and is taking more.
        let store = Store::start(config(dir("killed"))).await;
        ready(&store).await;
        let mut history = History::new();
        let mut stored = 0;
        for _ in 0..3 {
            // When the engine is killed, in the middle of it.
            let writer = store.clone();
            let writing = tokio::spawn(async move {
                loop {
                    history.next_run();
                    history.accept_as("killed", "{}").complete("1");
                    if writer.insert(&history.batch).await.is_err() {
                        return (history, stored);
                    }
                    history.take();
                    stored += 1;
                }
            });
            tokio::time::sleep(Duration::from_millis(200)).await;
            kill_engine(&store).await;
            (history, stored) = writing.await.unwrap();
            assert!(store.wait_ready(LONG).await, "{}", store.status());

            // Then every row that was answered for is there, and the batch that was not can be stored again.
            store.insert(&history.take()).await.unwrap();
            stored += 1;
            let count = sql(&store, "SELECT count() FROM runs WHERE workflow = 'killed'").await;
            assert_eq!(count, stored.to_string());
        }
        store.stop().await;
    });
}

#[test]
fn without_its_library_the_store_says_how_to_get_it_and_takes_it_when_it_comes() {
    runtime().block_on(async {
        // Given no library where it is configured to be.
        let dir = dir("missing");
        let path = dir.join("lib").join("libchdb.so");
        let store = Store::start(with_library(config(dir.join("data")), &path)).await;

        // Then the store says where it looked and what to do, and so does every call.
        let status = settled(&store).await;
        assert!(absent(&status).contains(&path.display().to_string()), "{status}");
        assert!(absent(&status).contains(library::SETUP_COMMAND), "{status}");
        let mut history = History::new();
        history.accept("{}");
        let error = store.insert(&history.batch).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("libchdb")), "{error}");
        assert!(store.run(history.run).await.unwrap_err().is_temporary());

        // When the library is put there, then it is taken.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(library::find(None).expect("these tests need the real engine"), &path)
            .unwrap();
        assert!(store.wait_ready(LONG).await, "{}", store.status());
        store.insert(&history.take()).await.unwrap();
        store.stop().await;
    });
}

#[test]
fn a_file_that_is_no_library_is_called_so() {
    runtime().block_on(async {
        let real = library::find(None).expect("these tests need the real engine");
        let dir = dir("corrupt");
        let head = |bytes: usize| {
            use std::io::Read as _;
            let mut head = vec![0; bytes];
            fs::File::open(&real).unwrap().read_exact(&mut head).unwrap();
            head
        };
        for (name, content) in [
            ("empty", Vec::new()),
            ("text", b"not a library".to_vec()),
            ("cut", head(1 << 20)),
            ("tiny", head(100)),
        ] {
            // Given such a file.
            let path = dir.join(name);
            fs::write(&path, content).unwrap();

            // When a store is started with it.
            let store = Store::start(with_library(config(dir.join("data")), &path)).await;

            // Then it is neither used nor waited for, and the sentence names it.
            let status = settled(&store).await;
            let why = absent(&status);
            assert!(why.contains(&path.display().to_string()) && why.contains("Delete it"), "{name}: {why}");
            store.stop().await;
        }
    });
}

#[test]
fn another_library_is_called_so() {
    runtime().block_on(async {
        // Given a shared library that is another.
        let other =
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/usr/lib/libm.so.6"];
        let Some(other) = other.into_iter().find(|path| Path::new(path).exists()) else { return };
        let store = Store::start(with_library(config(dir("other")), Path::new(other))).await;

        // Then it is told apart.
        let status = settled(&store).await;
        assert!(absent(&status).contains("SHA-256") || absent(&status).contains("chdb_connect"), "{status}");
        store.stop().await;
    });
}

#[test]
fn a_server_that_is_not_there_is_tried_again() {
    runtime().block_on(async {
        // Given the address of a server that does not run yet.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let target = Target::External { url, database: "r".into(), user: None, password: None };
        let store = Store::start(StoreConfig { target, ..StoreConfig::default() }).await;

        // Then the store is down, and says why.
        let status = settled(&store).await;
        assert!(matches!(&status, Status::Down { why } if why.contains("refused")), "{status:?}");
        store.stop().await;
    });
}

#[test]
fn a_directory_in_use_is_waited_for() {
    runtime().block_on(async {
        // Given an engine on a directory.
        let dir = dir("in-use");
        let first = Store::start(config(dir.clone())).await;
        ready(&first).await;

        // When a second store is started on it.
        let mut config = config(dir);
        config.reconnect_max = Duration::from_millis(200);
        let second = Store::start(config).await;

        // Then it is down as long as the first runs, and ready after that.
        let status = settled(&second).await;
        assert!(matches!(&status, Status::Down { .. }), "{status:?}");
        first.stop().await;
        assert!(second.wait_ready(LONG).await, "{}", second.status());
        second.stop().await;
    });
}

#[test]
fn the_engine_goes_with_its_last_store() {
    runtime().block_on(async {
        // Given a store with two handles.
        let store = Store::start(config(dir("dropped"))).await;
        ready(&store).await;
        let process = store.engine_process().expect("it runs");
        let other = store.clone();
        drop(store);
        assert_eq!(sql(&other, "SELECT 1").await, "1");

        // When the last is dropped, then the process ends.
        let mut status = other.status_watch();
        drop(other);
        let gone = status.wait_for(|status| !status.is_ready());
        tokio::time::timeout(LONG, gone).await.expect("goes").unwrap();
        let deadline = std::time::Instant::now() + LONG;
        while Path::new(&format!("/proc/{process}")).exists() {
            assert!(std::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    });
}
