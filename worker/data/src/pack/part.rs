//! A process's share of a pack, and the command line that packs it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{PackError, PackOptions};

/// Most processes that share a pack out.
const PARTS_MAX: u32 = 100_000;

/// One of several equal shares, counted from 1: `2/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1 to `of`.
    pub part: u32,
    /// How many shares there are.
    pub of: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// The run of `all` things that is this part's; the parts' runs follow one another.
    #[must_use]
    pub fn share(self, all: usize) -> Range<usize> {
        let until = |part: u32| (all as u128 * u128::from(part) / u128::from(self.of.max(1))) as usize;
        until(self.part.saturating_sub(1))..until(self.part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) && of <= PARTS_MAX => Ok(Self { part, of }),
            _ => Err(format!("a part is I/N, with I from 1 to N and N at most {PARTS_MAX}: 1/3, 2/3 and 3/3")),
        }
    }
}

impl PackOptions {
    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<(), PackError> {
        if !(1..=200).contains(&self.segments) {
            return Err(PackError::Option(format!("--segments {}: from 1 to 200", self.segments)));
        }
        if !(32..=1024).contains(&self.slic_size) {
            return Err(PackError::Option(format!("--slic-size {}: from 32 to 1024", self.slic_size)));
        }
        Ok(())
    }

    /// What a person types to pack a part with these options.
    #[must_use]
    pub fn command(&self, part: Part) -> String {
        let plain = Self::new("", "");
        let mut command = format!("r2octl data pack {} --out {}", quoted(&self.source), quoted(&self.out));
        for (name, place) in [("--masks", &self.masks), ("--images", &self.images)] {
            if let Some(place) = place {
                command += &format!(" {name} {}", quoted(place));
            }
        }
        let numbers = [
            ("--segments", u64::from(self.segments), u64::from(plain.segments)),
            ("--slic-size", u64::from(self.slic_size), u64::from(plain.slic_size)),
            ("--shard-mib", self.shard_bytes >> 20, plain.shard_bytes >> 20),
            ("--min-side", u64::from(self.side_min), u64::from(plain.side_min)),
        ];
        for (name, value, default) in numbers {
            if value != default {
                command += &format!(" {name} {value}");
            }
        }
        if part != Part::WHOLE {
            command += &format!(" --part {part}");
        }
        command
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@+=,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole() {
        for (all, of) in [(0, 1), (1, 3), (7, 3), (600, 7), (5, 8)] {
            let shares = (1..=of).flat_map(|part| Part { part, of }.share(all));
            assert_eq!(shares.collect::<Vec<_>>(), (0..all).collect::<Vec<_>>(), "{all} in {of}");
        }
    }

    #[test]
    fn a_part_is_counted_from_one() {
        assert_eq!("2/3".parse(), Ok(Part { part: 2, of: 3 }));
        for wrong in ["0/3", "4/3", "1", "1/0", "/", "-1/2", "1/2/3", "1/100001"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_is_what_a_shell_takes() {
        let options =
            PackOptions { segments: 50, masks: Some("it's".into()), ..PackOptions::new("my photos", "s3://b/x") };
        let command = options.command(Part { part: 2, of: 3 });
        assert_eq!(command, r"r2octl data pack 'my photos' --out s3://b/x --masks 'it'\''s' --segments 50 --part 2/3");
        assert_eq!(PackOptions::new("a", "b").command(Part::WHOLE), "r2octl data pack a --out b");
    }
}
