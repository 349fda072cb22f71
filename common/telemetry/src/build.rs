//! What the running program was built from.

use std::fmt;

/// Facts of the build, for `--version`, the first log line and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// The workspace's version, `0.1.0`.
    pub version: &'static str,
    /// The commit, where the build was told it through `R2O_COMMIT`.
    pub commit: Option<&'static str>,
    /// `debug` (assertions on) or `release`.
    pub profile: &'static str,
    /// Processor architecture and operating system, `x86_64-linux`.
    pub platform: &'static str,
}

/// The facts of this build.
pub const fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("R2O_COMMIT"),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        platform: if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            "x86_64-linux"
        } else if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
            "aarch64-linux"
        } else if cfg!(target_os = "macos") {
            "macos"
        } else {
            "other"
        },
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.version, self.profile, self.platform)?;
        if let Some(commit) = self.commit {
            write!(f, ", {commit}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_version_and_platform() {
        let text = build_info().to_string();
        assert!(text.starts_with(env!("CARGO_PKG_VERSION")), "{text}");
        assert!(text.contains(build_info().platform), "{text}");
    }
}
