//! Downloads the files of a set of images.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;

use super::image_set::{FileSpec, ImageSet};
use super::{DataError, FileFault, idx, image_files};

/// A download of a set.
#[derive(Debug)]
pub struct Download<'a> {
    /// The set.
    pub set: &'a ImageSet,
    /// The directory of its files.
    pub dir: &'a Path,
    /// The URL of the directory that has them, compressed.
    pub mirror: &'a str,
    /// Whether files that are there and wrong are replaced.
    pub force: bool,
}

/// What a download does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// A file is there already, and right.
    Kept(&'static str),
    /// The server sends a file, of so many bytes if it says so.
    Begun(&'static str, Option<u64>),
    /// So many bytes of it are there.
    Received(u64),
    /// It is whole, right, and stands under its name.
    Written(&'static str),
}

/// Why a set cannot be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The mirror is no URL of HTTP.
    #[error("--mirror {mirror}: it must be a URL that begins with http:// or https://")]
    Mirror {
        /// As it was given.
        mirror: String,
    },
    /// A file is there that is not the right one.
    #[error("{}: {fault}; replace it with --force, or name another directory with --data-dir", path.display())]
    Present {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A file that is there cannot be read.
    #[error(transparent)]
    Unreadable(DataError),
    /// The network or the server failed.
    #[error("{url}: {reason}; {mend}")]
    Network {
        /// The file that was asked for.
        url: String,
        /// What happened.
        reason: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// What the server sent is not the file.
    #[error("{url}: {fault}; nothing was kept of it: try again, or name another mirror with --mirror")]
    Content {
        /// The file that was asked for.
        url: String,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// The directory cannot be made or written.
    #[error("{}: the files cannot be written there: {cause}; name another directory with --data-dir", dir.display())]
    Place {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written: {cause}; files that are whole are kept, and the same command continues", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl FetchError {
    /// Whether the command has to be changed, and nothing failed on the way.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Mirror { .. } | Self::Present { .. } | Self::Unreadable(_) | Self::Place { .. })
    }
}

const CONNECT: Duration = Duration::from_secs(20);
/// Without a byte for so long, a server counts as gone.
const STALL: Duration = Duration::from_secs(30);
/// A piece of a download, after which its progress is told.
const PIECE: usize = 1 << 16;

const CHECK_CONNECTION: &str = "check the connection, or name another mirror with --mirror";
const CONTINUE: &str = "the same command continues: files that are whole are kept";

/// Downloads the files of a set that are not there yet. Each is decompressed and checked in memory, written under a
/// temporary name, and gets its own name when it is whole: whatever stops this leaves no piece of a file under it.
///
/// # Errors
///
/// If a file is there that is wrong, unless `force` is set, in which case nothing is downloaded; if the network or the server
/// fails; if what comes is not the file; if it cannot be written.
pub fn fetch(download: &Download<'_>, tell: &mut dyn FnMut(FetchEvent)) -> Result<(), FetchError> {
    let Download { set, dir, mirror, force } = *download;
    if !is_folder(mirror) {
        return Err(FetchError::Mirror { mirror: mirror.to_owned() });
    }
    let mut due = Vec::new();
    for spec in &set.files {
        match present(set, spec, dir) {
            Ok(true) => tell(FetchEvent::Kept(spec.name)),
            Ok(false) => due.push(spec),
            Err(FetchError::Present { .. }) if force => due.push(spec),
            Err(error) => return Err(error),
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    // Whether there is a place for them is known before they are downloaded.
    let made: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let result = make_place(dir).and_then(|()| download_all(set, &due, dir, mirror, tell));
    if result.is_err() {
        // Directories that are empty, and were made for nothing; others stay.
        for dir in made {
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

/// Makes the directory and finds out whether it can be written.
fn make_place(dir: &Path) -> Result<(), FetchError> {
    let probe = dir.join(format!(".tmp-{}", std::process::id()));
    let possible = fs::create_dir_all(dir).and_then(|()| File::create(&probe)).and_then(|_| fs::remove_file(&probe));
    possible.map_err(|cause| FetchError::Place { dir: dir.to_owned(), cause })
}

fn download_all(
    set: &ImageSet,
    due: &[&FileSpec],
    dir: &Path,
    mirror: &str,
    tell: &mut dyn FnMut(FetchEvent),
) -> Result<(), FetchError> {
    let agent = agent();
    for spec in due {
        let url = format!("{}/{}.gz", mirror.trim_end_matches('/'), spec.name);
        let bytes = receive(&agent, &url, spec, tell)?;
        let bytes = image_files::check(set, spec, bytes, true).map_err(|fault| FetchError::Content { url, fault })?;
        write(dir, spec, &bytes)?;
        tell(FetchEvent::Written(spec.name));
    }
    Ok(())
}

/// Whether a URL is that of a folder on a server, behind which the name of a file can stand.
fn is_folder(url: &str) -> bool {
    let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty() && !rest.contains(['?', '#']))
}

/// Whether a file is there, and right.
fn present(set: &ImageSet, spec: &FileSpec, dir: &Path) -> Result<bool, FetchError> {
    let Some(path) = image_files::find(spec, dir) else { return Ok(false) };
    match image_files::read(set, spec, &path, "") {
        Ok(_) => Ok(true),
        Err(DataError::Faulty { path, fault, .. }) => Err(FetchError::Present { path, fault }),
        Err(error) => Err(FetchError::Unreadable(error)),
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(STALL))
        .timeout_per_read(Some(STALL))
        .user_agent(concat!("gradmark/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// The body of a response, as it comes.
fn receive(agent: &Agent, url: &str, spec: &FileSpec, tell: &mut dyn FnMut(FetchEvent)) -> Result<Vec<u8>, FetchError> {
    let failed = |error: ureq::Error| {
        let (reason, mend) = describe(error);
        FetchError::Network { url: url.to_owned(), reason, mend }
    };
    let body = agent.get(url).call().map_err(failed)?.into_body();
    tell(FetchEvent::Begun(spec.name, body.content_length()));
    let mut reader = body.into_with_config().limit(idx::MOST_BYTES).reader();
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece).map_err(|error| failed(error.into()))? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&piece[..count]),
        }
        tell(FetchEvent::Received(bytes.len() as u64));
    }
}

/// What happened, and what to do about it.
fn describe(error: ureq::Error) -> (String, &'static str) {
    match error {
        ureq::Error::HostNotFound => ("the host was not found".to_owned(), CHECK_CONNECTION),
        ureq::Error::StatusCode(404) => {
            ("the server does not have it (404)".to_owned(), "name another mirror with --mirror")
        }
        ureq::Error::StatusCode(code) => {
            (format!("the server answers with {code}"), "try again later, or name another mirror with --mirror")
        }
        ureq::Error::Timeout(_) => ("the server does not answer any more".to_owned(), CONTINUE),
        ureq::Error::BodyExceedsLimit(_) => {
            (format!("it is larger than {} bytes", idx::MOST_BYTES), "name another mirror with --mirror")
        }
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ("the connection was cut off in the middle".to_owned(), CONTINUE)
        }
        error => (error.to_string(), CHECK_CONNECTION),
    }
}

/// Writes a file whose header was taken off.
fn write(dir: &Path, spec: &FileSpec, contents: &[u8]) -> Result<(), FetchError> {
    let path = dir.join(spec.name);
    let temporary = dir.join(format!(".tmp-{}-{}", std::process::id(), spec.name));
    let write = || {
        fs::create_dir_all(dir)?;
        let mut file = File::create(&temporary)?;
        file.write_all(&idx::header(spec.dimensions))?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|cause| {
        // What remains of it is of no use; where it cannot be removed either, the error below tells why.
        let _ = fs::remove_file(&temporary);
        FetchError::Write { path, cause }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::data::idx::tests::gzip;
    use crate::data::image_files::tests::tiny;

    /// Answers each path with bytes, which begin with the status line, and tells where it listens.
    fn serve(answers: BTreeMap<String, Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("clones")).lines();
                let request = lines.next().expect("a request").expect("text");
                // The headers, up to the empty line.
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let path = request.split(' ').nth(1).unwrap_or_default();
                let absent = || b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                let answer = answers.get(path).cloned().unwrap_or_else(absent);
                // A client that has seen enough closes its end.
                let _ = stream.write_all(&answer);
            }
        });
        format!("http://{address}")
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    /// The answers of a mirror that has the tiny set.
    fn mirror() -> BTreeMap<String, Vec<u8>> {
        let (set, files) = tiny();
        let answer = |(spec, bytes): (&FileSpec, &Vec<u8>)| (format!("/data/{}.gz", spec.name), ok(&gzip(bytes)));
        set.files.iter().zip(&files).map(answer).collect()
    }

    const IMAGES: &str = "/data/train-images-idx3-ubyte.gz";

    fn fetch_tiny(dir: &Path, mirror: &str, force: bool) -> (Result<(), FetchError>, Vec<FetchEvent>) {
        let mut events = Vec::new();
        let (set, _) = tiny();
        let result = fetch(&Download { set: &set, dir, mirror, force }, &mut |event| events.push(event));
        events.retain(|event| !matches!(event, FetchEvent::Received(_)));
        (result, events)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).map(|entries| {
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
        });
        let mut names: Vec<String> = entries.unwrap_or_default();
        names.sort();
        names
    }

    /// Downloads from a mirror one of whose answers is another, and gives the error.
    #[track_caller]
    fn failed(path: &str, answer: Option<Vec<u8>>) -> String {
        let mut answers = mirror();
        match answer {
            Some(answer) => answers.insert(path.to_owned(), answer),
            None => answers.remove(path),
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("{}/data/", serve(answers));
        let error = fetch_tiny(dir.path(), &url, false).0.expect_err("it fails");
        assert!(names(dir.path()).is_empty(), "{:?} is left", names(dir.path()));
        assert!(!error.is_usage());
        let error = error.to_string();
        assert!(error.contains(&format!("{}{}", url.trim_end_matches("/data/"), path)), "{error}");
        error
    }

    #[test]
    fn a_download_leaves_the_four_files_raw_and_a_second_one_keeps_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("below/tiny");
        let url = format!("{}/data", serve(mirror()));
        let (result, events) = fetch_tiny(&target, &url, false);
        result.expect("downloads");
        let (set, files) = tiny();
        for (spec, bytes) in set.files.iter().zip(&files) {
            assert_eq!(fs::read(target.join(spec.name)).expect("reads"), *bytes, "{}", spec.name);
        }
        assert_eq!(names(&target).len(), 4);
        assert_eq!(events.len(), 8);
        assert!(matches!(events[0], FetchEvent::Begun("train-images-idx3-ubyte", Some(_))), "{events:?}");
        let (result, events) = fetch_tiny(&target, "http://127.0.0.1:1", false);
        result.expect("nothing is due");
        assert_eq!(events, set.files.map(|spec| FetchEvent::Kept(spec.name)));
    }

    #[test]
    fn a_redirection_is_followed() {
        let mut answers = mirror();
        let moved = answers.remove(IMAGES).expect("there");
        answers.insert("/moved".to_owned(), moved);
        let redirection = b"HTTP/1.1 302 Found\r\nLocation: /moved\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        answers.insert(IMAGES.to_owned(), redirection.to_vec());
        let dir = tempfile::tempdir().expect("a temporary directory");
        fetch_tiny(dir.path(), &format!("{}/data", serve(answers)), false).0.expect("downloads");
        assert_eq!(names(dir.path()).len(), 4);
    }

    #[test]
    fn a_file_that_is_there_is_kept_under_any_of_its_names_and_the_others_are_downloaded() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_, files) = tiny();
        fs::write(dir.path().join("train-images.idx3-ubyte.gz"), gzip(&files[0])).expect("writes");
        let (result, events) = fetch_tiny(dir.path(), &format!("{}/data", serve(mirror())), false);
        result.expect("downloads");
        assert_eq!((events[0], events.len()), (FetchEvent::Kept("train-images-idx3-ubyte"), 7));
    }

    #[test]
    fn a_wrong_file_is_refused_before_anything_is_downloaded_and_replaced_by_force() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("t10k-labels-idx1-ubyte");
        fs::write(&path, b"mine").expect("writes");
        let url = format!("{}/data", serve(mirror()));
        let (result, events) = fetch_tiny(dir.path(), &url, false);
        let error = result.expect_err("it is wrong");
        assert!(error.is_usage() && error.to_string().contains("--force"), "{error}");
        assert!(error.to_string().contains("t10k-labels-idx1-ubyte"), "{error}");
        assert_eq!((events, fs::read(&path).expect("reads")), (Vec::new(), b"mine".to_vec()));
        fetch_tiny(dir.path(), &url, true).0.expect("replaces it");
        assert_eq!(fs::read(&path).expect("reads"), tiny().1[3]);
        assert_eq!(names(dir.path()).len(), 4);
    }

    #[test]
    fn a_file_that_the_server_does_not_have_is_told_with_its_url() {
        let error = failed(IMAGES, None);
        assert!(error.contains("(404)") && error.contains("--mirror"), "{error}");
        let gone = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
        let error = failed(IMAGES, Some(gone));
        assert!(error.contains("answers with 503"), "{error}");
    }

    #[test]
    fn a_connection_that_is_cut_off_in_the_middle_leaves_nothing() {
        let whole = ok(&gzip(&tiny().1[0]));
        let error = failed(IMAGES, Some(whole[..whole.len() - 9].to_vec()));
        assert!(error.contains("cut off in the middle") && error.contains("the same command continues"), "{error}");
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let (_, files) = tiny();
        let mut changed = files[0].clone();
        changed[20] ^= 1;
        for (body, expected) in [
            (gzip(&changed), "should have the SHA-256"),
            (gzip(&files[0][..20]), "cut off: it should have 28 bytes, but has 20"),
            (gzip(&files[2]), "has the contents of t10k-images-idx3-ubyte"),
            (files[0].clone(), "should be compressed with gzip"),
            (b"<html>sign in</html>".to_vec(), "should be compressed with gzip"),
            (Vec::new(), "it is empty"),
            (gzip(&files[0])[..20].to_vec(), "gzip data are damaged"),
        ] {
            let error = failed(IMAGES, Some(ok(&body)));
            assert!(error.contains(expected) && error.contains("nothing was kept"), "{error}\n  lacks: {expected}");
        }
    }

    #[test]
    fn more_than_any_file_has_is_not_read() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", u64::MAX / 2);
        let endless = [head.as_bytes(), &vec![0; idx::MOST_BYTES as usize + 1]].concat();
        let error = failed(IMAGES, Some(endless));
        assert!(error.contains("larger than 67108864 bytes"), "{error}");
    }

    #[test]
    fn a_host_that_is_not_there_and_a_mirror_that_is_no_url_are_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = fetch_tiny(dir.path(), "http://127.0.0.1:1/data", false).0.expect_err("nobody listens");
        assert!(!error.is_usage() && error.to_string().contains("check the connection"), "{error}");
        let error = fetch_tiny(dir.path(), "http://nowhere.invalid/", false).0.expect_err("no such host");
        assert!(error.to_string().contains("http://nowhere.invalid/train-images-idx3-ubyte.gz: "), "{error}");
        let error = fetch_tiny(dir.path(), "ftp://host/", false).0.expect_err("not HTTP");
        assert!(error.is_usage() && error.to_string().contains("--mirror ftp://host/"), "{error}");
    }
}
