//! The client's side of tokens: each request carries the first line of a file.
//!
//! The file is read for every request, so that a token is exchanged by writing the file; requests are few.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A connection whose requests carry a token, where one is given.
pub type TokenChannel = InterceptedService<Channel, TokenFile>;

/// Where a client's token is.
#[derive(Clone, Default)]
pub struct TokenFile(Option<PathBuf>);

impl TokenFile {
    /// The token in a file; `None`: requests carry none.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// The token that the file holds now; `None`: there is no file, or none in it.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        token(&fs::read_to_string(self.0.as_ref()?).ok()?).map(str::to_owned)
    }

    /// A connection whose requests carry the token.
    #[must_use]
    pub fn on(self, channel: Channel) -> TokenChannel {
        InterceptedService::new(channel, self)
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenFile").field(&self.0).finish()
    }
}

impl Interceptor for TokenFile {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(path) = &self.0 {
            let bearer = read(path).map_err(|reason| {
                let path = path.display();
                Status::unauthenticated(format!("token file {path}: {reason}; give one that holds a token in one line"))
            })?;
            request.metadata_mut().insert("authorization", bearer);
        }
        Ok(request)
    }
}

/// The metadata for the token in a file. What is wrong never repeats what the file holds.
fn read(path: &Path) -> Result<MetadataValue<Ascii>, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let token = token(&text).ok_or("it is empty")?;
    let mut bearer: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| "its token has characters that cannot be sent")?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// The first line that is one.
fn token(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(file: &mut TokenFile) -> Result<Option<String>, Status> {
        let request = file.call(Request::new(()))?;
        let text = |value: &MetadataValue<Ascii>| value.to_str().map(str::to_owned).ok();
        Ok(request.metadata().get("authorization").and_then(text))
    }

    #[test]
    fn a_token_is_sent_as_the_file_has_it_now() {
        let path = std::env::temp_dir().join(format!("r2o-token-{}", std::process::id()));
        fs::write(&path, "# of this machine\n secret-1 \n").unwrap();
        let mut file = TokenFile::new(Some(path.clone()));
        assert_eq!(sent(&mut file).unwrap().as_deref(), Some("Bearer secret-1"));
        fs::write(&path, "secret-2").unwrap();
        assert_eq!(sent(&mut file).unwrap().as_deref(), Some("Bearer secret-2"));
        assert!(!format!("{file:?}").contains("secret"));
        for wrong in ["", "# nothing\n", "se\u{7f}cret"] {
            fs::write(&path, wrong).unwrap();
            let status = sent(&mut file).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(status.message().contains("r2o-token") && !status.message().contains("cret"), "{status:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(sent(&mut file).is_err());
    }

    #[test]
    fn without_a_file_nothing_is_sent() {
        assert_eq!(sent(&mut TokenFile::default()).unwrap(), None);
    }
}
