//! A static file server on loopback, for the demo: one folder, GET, nothing else. The standard library is enough.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// A request line and headers longer than this are cut off.
const REQUEST_BYTES: u64 = 16 * 1024;
/// A connection that is silent for this long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Serves the files of `folder` until the process ends.
pub(crate) fn serve(folder: &Path) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot open a port on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let folder: Arc<Path> = Arc::from(folder);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = Arc::clone(&folder);
            // A connection that breaks concerns the client alone.
            thread::spawn(move || drop(answer(&stream, &folder)));
        }
    });
    Ok(address)
}

/// One request per connection: simple, and plenty for a demo.
fn answer(mut stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let body = match request.split(' ').collect::<Vec<_>>()[..] {
        ["GET", target, _] => resolve(folder, target).and_then(|path| std::fs::read(path).ok()),
        _ => None,
    };
    let (status, body) = body.map_or(("404 Not Found", b"not here\n".to_vec()), |body| ("200 OK", body));
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/csv\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// The file that a request's target names, if it lies in `folder`.
fn resolve(folder: &Path, target: &str) -> Option<PathBuf> {
    let relative = Path::new(target.split('?').next()?.trim_start_matches('/'));
    relative.components().all(|part| matches!(part, Component::Normal(_))).then(|| folder.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_inside_the_folder() {
        let folder = Path::new("/data");
        assert_eq!(resolve(folder, "/a.csv?x=1"), Some(PathBuf::from("/data/a.csv")));
        assert_eq!(resolve(folder, "/../etc/passwd"), None);
        assert_eq!(resolve(folder, "//etc/passwd"), Some(PathBuf::from("/data/etc/passwd")));
    }
}
