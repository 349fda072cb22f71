//! Who may ask for what: a file of tokens, each with a role.
//!
//! Only BLAKE3 hashes of tokens are kept, and compared in constant time: no token can get into a log, an error or a dump.
//! The file is looked at with every request and read again when it has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{fmt, fs};

use tonic::Status;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To train: the services of workers.
    Worker,
    /// To look at jobs and workers.
    Reader,
    /// To submit and steer jobs, and all that a reader may.
    Submitter,
    /// Everything.
    Admin,
}

impl Role {
    const ALL: [(&'static str, Self); 4] =
        [("worker", Self::Worker), ("reader", Self::Reader), ("submitter", Self::Submitter), ("admin", Self::Admin)];

    /// Whether it may do what `needed` is for.
    pub(crate) fn may(self, needed: Self) -> bool {
        self == needed || self == Self::Admin || (self == Self::Submitter && needed == Self::Reader)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(_, role)| role == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// The role that a request needs, by its path; `None`: anybody may ask. A method that is not listed is for administrators.
fn needed(path: &str) -> Option<Role> {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    Some(match (service, method) {
        ("grpc.health.v1.Health", _) => return None,
        ("r2o.v1.Fleet" | "r2o.v1.Rendezvous", _) => Role::Worker,
        ("r2o.v1.Jobs", "List" | "Get" | "Watch" | "Events" | "Logs" | "Fleet" | "Why") => Role::Reader,
        ("r2o.v1.Jobs", "Submit" | "Cancel" | "Pause" | "Resume" | "Requeue" | "Checkpoint") => Role::Submitter,
        _ => Role::Admin,
    })
}

/// What is wrong with a file of tokens. It never repeats what the file holds.
#[derive(Debug, thiserror::Error)]
#[error("token file {}: {reason}; each line is a role (worker, reader, submitter or admin) and a token", path.display())]
pub struct TokensError {
    path: PathBuf,
    reason: String,
}

/// The token that a request showed, as a hash; `None`: none was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown(Option<blake3::Hash>);

impl Shown {
    /// A token itself.
    pub(crate) fn token(token: &str) -> Self {
        Self(Some(blake3::hash(token.trim().as_bytes())))
    }
}

/// The tokens that a coordinator takes; without a file it serves everybody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens(Option<Arc<File>>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    roles: Vec<(blake3::Hash, Role)>,
}

/// What tells one state of a file from another.
type Stamp = (SystemTime, u64, u64);

impl Tokens {
    /// Reads the file.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, TokensError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let stamp = stamp(path);
        let known = Mutex::new(Known { stamp, roles: read(path)? });
        Ok(Self(Some(Arc::new(File { path: path.to_owned(), known }))))
    }

    /// Whether everybody is served.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The role of a token by its hash; `None`: it is not known.
    pub(crate) fn role(&self, token: blake3::Hash) -> Option<Role> {
        self.0.as_ref()?.role(token)
    }

    /// Whether a request may be served, by its path and its `authorization`.
    pub(crate) fn check(&self, path: &str, authorization: Option<&[u8]>) -> Result<Shown, Status> {
        let Some(needed) = needed(path) else { return Ok(Shown(None)) };
        self.allow(needed, path.trim_start_matches('/').trim_start_matches("r2o.v1."), authorization)
    }

    /// Whether whoever shows this `authorization` may look at jobs and workers.
    pub(crate) fn may_read(&self, authorization: Option<&[u8]>) -> Result<Shown, Status> {
        self.allow(Role::Reader, "pages", authorization)
    }

    /// Whether a worker that showed this is still served; without a file everybody is.
    pub(crate) fn serve_worker(&self, shown: Shown) -> bool {
        let Some(file) = &self.0 else { return true };
        shown.0.and_then(|hash| file.role(hash)).is_some_and(|role| role.may(Role::Worker))
    }

    fn allow(&self, needed: Role, what: &str, authorization: Option<&[u8]>) -> Result<Shown, Status> {
        let Some(file) = &self.0 else { return Ok(Shown(None)) };
        let Some(authorization) = authorization else {
            return Err(Status::unauthenticated(
                "this coordinator asks for a token: give --token-file FILE, or set R2O_TOKEN_FILE",
            ));
        };
        let token = authorization.strip_prefix(b"Bearer ").unwrap_or_default().trim_ascii();
        let hash = blake3::hash(token);
        let role = file.role(hash).ok_or_else(|| {
            Status::unauthenticated("the coordinator does not know this token: ask its administrator for another")
        })?;
        if role.may(needed) {
            return Ok(Shown(Some(hash)));
        }
        Err(Status::permission_denied(format!(
            "a token of role {role} may not call {what}: use one of role {needed} or admin"
        )))
    }
}

impl File {
    fn role(&self, token: blake3::Hash) -> Option<Role> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if now != known.stamp {
            known.stamp = now;
            match read(&self.path) {
                Ok(roles) => {
                    tracing::info!("token file {}: {} tokens from now on", self.path.display(), roles.len());
                    known.roles = roles;
                }
                Err(error) => tracing::warn!("the tokens from before stay: {error}"),
            }
        }
        // All are compared, each in constant time.
        known.roles.iter().fold(None, |found, (hash, role)| if *hash == token { Some(*role) } else { found })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn read(path: &Path) -> Result<Vec<(blake3::Hash, Role)>, TokensError> {
    let wrong = |reason: String| TokensError { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let mut roles = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (role, token) = (words.next().unwrap_or_default(), words.next());
        let role = Role::ALL.iter().find(|(word, _)| *word == role).map(|(_, role)| *role);
        match (role, token, words.next()) {
            (Some(role), Some(token), None) => roles.push((blake3::hash(token.as_bytes()), role)),
            (None, ..) => return Err(wrong(format!("line {number} begins with no role"))),
            _ => return Err(wrong(format!("line {number} is not a role and one token"))),
        }
    }
    if roles.is_empty() {
        return Err(wrong("it holds no token, so that nobody could be served".to_owned()));
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    const FLEET: &str = "/r2o.v1.Fleet/Session";
    const LIST: &str = "/r2o.v1.Jobs/List";
    const SUBMIT: &str = "/r2o.v1.Jobs/Submit";
    const NEW: &str = "/r2o.v1.Jobs/Novel";

    #[test]
    fn a_role_may_do_what_it_is_for() {
        let (_folder, path) = file("# team\nworker w1\nreader r1\n\n submitter s1 \nadmin a1\nworker w2\n");
        let tokens = Tokens::open(Some(&path)).unwrap();
        let may = |token: &str, path| tokens.check(path, Some(format!("Bearer {token}").as_bytes())).is_ok();
        let all = |token| [FLEET, LIST, SUBMIT, NEW].map(|path| may(token, path));
        assert_eq!(all("w1"), [true, false, false, false]);
        assert_eq!(all("w2"), all("w1"));
        assert_eq!(all("r1"), [false, true, false, false]);
        assert_eq!(all("s1"), [false, true, true, false]);
        assert_eq!(all("a1"), [true; 4]);
        assert_eq!(all("x"), [false; 4]);
        assert_eq!(all(""), [false; 4]);
        assert!(tokens.check("/grpc.health.v1.Health/Check", None).is_ok());
        assert!(tokens.check(LIST, Some(b"w1")).is_err(), "not a bearer's");
        assert!(Tokens::default().check(SUBMIT, None).is_ok(), "without a file everybody is served");
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_changes_nothing() {
        let (_folder, path) = file("reader one");
        let tokens = Tokens::open(Some(&path)).unwrap();
        let may = |token: &str| tokens.check(LIST, Some(format!("Bearer {token}").as_bytes())).is_ok();
        fs::write(&path, "reader other").unwrap();
        assert!(may("other") && !may("one"));
        fs::write(&path, "nobody knows").unwrap();
        assert!(may("other") && !may("knows"));
    }

    #[test]
    fn what_is_wrong_names_the_file_and_the_line_and_never_the_token() {
        for (text, line) in [("king secret", "line 1"), ("\nadmin secret secret", "line 2"), ("admin", "line 1")] {
            let (_folder, path) = file(text);
            let message = Tokens::open(Some(&path)).unwrap_err().to_string();
            assert!(message.contains(line) && message.contains("tokens") && !message.contains("secret"), "{message}");
        }
        let (_folder, path) = file("# none");
        assert!(Tokens::open(Some(&path)).unwrap_err().to_string().contains("no token"));
        let (_folder, path) = file("admin secret");
        let debug = format!("{:?}", Tokens::open(Some(&path)).unwrap());
        assert!(!debug.contains("secret"), "{debug}");
    }
}
