//! Secrets that occur nowhere else, and the search for them.

use std::path::Path;

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};

/// Bytes around a find that are shown.
const AROUND: usize = 60;

/// Something that a program put out: what it is, and its bytes.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
}

impl Said {
    pub(crate) fn new(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { what: what.into(), bytes: bytes.into() }
    }

    /// Fails unless it holds this: a search through nothing finds nothing.
    pub(crate) fn must_hold(self, text: &str) -> Result<Self> {
        ensure!(self.holds(text), "{} lacks `{text}`:\n{}", self.what, String::from_utf8_lossy(&self.bytes));
        Ok(self)
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.bytes).contains(text)
    }
}

/// The secrets of one run.
#[derive(Debug, Default)]
pub(crate) struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    /// Makes one up.
    pub(crate) fn invent(&mut self, of: &str) -> String {
        let word = format!("canary-{:02}-of-{}", self.0.len(), of.replace(' ', "-"));
        self.add(of, word.as_bytes());
        word
    }

    /// One that is given.
    pub(crate) fn add(&mut self, of: &str, secret: &[u8]) {
        self.0.push((of.to_owned(), secret.to_owned()));
    }

    /// The private number of a key in a file: bytes 36 to 68 of its PKCS #8 (RFC 5208, RFC 5915), in the two parts that
    /// lie on PEM's first and second line.
    pub(crate) fn add_key(&mut self, of: &str, file: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file)?;
        let lines: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = BASE64_STANDARD.decode(lines)?;
        ensure!(key.get(34..36) == Some(&[4, 32]), "{} is no P-256 key as it is made today", file.display());
        self.add(of, key.get(36..48).context("a short key")?);
        self.add(of, key.get(48..68).context("a short key")?);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which secrets are in what was said, and where.
    pub(crate) fn found_in(&self, all: &[Said]) -> Result<Vec<String>> {
        let forms: Vec<(&str, Vec<u8>)> =
            self.0.iter().flat_map(|(of, secret)| forms(secret).map(move |form| (of.as_str(), form))).collect();
        let search = AhoCorasick::new(forms.iter().map(|(_, form)| form))?;
        let mut found = Vec::new();
        for Said { what, bytes } in all {
            found.extend(search.find_iter(bytes).map(|hit| {
                let place = hit.start().saturating_sub(AROUND)..bytes.len().min(hit.end() + AROUND);
                let (of, _) = forms[hit.pattern().as_usize()];
                format!("{of} is in {what}: {}", String::from_utf8_lossy(&bytes[place]))
            }));
        }
        Ok(found)
    }
}

/// A secret as it is, as a list of its bytes, which is how Rust shows them, and in base64 wherever in it it begins.
fn forms(secret: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let list = format!("{secret:?}");
    let list = list.trim_matches(['[', ']']).as_bytes().to_owned();
    // Three bytes are four letters. Letters that others share in are left out.
    let coded = [(0, 0), (1, 2), (2, 3)].map(|(before, shared)| {
        let bytes = [&[0; 2][..before], secret].concat();
        BASE64_STANDARD.encode(&bytes[..bytes.len() / 3 * 3]).split_off(shared).into_bytes()
    });
    [secret.to_owned(), list].into_iter().chain(coded)
}

#[test]
fn a_secret_is_found_in_each_of_its_forms() -> Result<()> {
    let mut canaries = Canaries::default();
    let word = canaries.invent("a test");
    let mut said =
        vec![Said::new("text", format!("token={word}&")), Said::new("bytes", format!("{:?}", word.as_bytes()))];
    for before in ["", "a", "ab", "abc"] {
        said.push(Said::new("base64", BASE64_STANDARD.encode(format!("{before}:{word}:"))));
    }
    assert_eq!(canaries.found_in(&said)?.len(), said.len());
    assert!(canaries.found_in(&[Said::new("another", "canary-99-of-a-test")])?.is_empty());
    Ok(())
}
