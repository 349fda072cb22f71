//! Rooms: code that may only be written in named places.

use super::{Violation, text::TextFile};

/// Something that has its rooms.
struct Room {
    /// What gives it away in a line of code.
    signs: &'static [&'static str],
    /// Path prefixes where it may be.
    places: &'static [&'static str],
    /// Whether tests may have it anywhere.
    in_tests: bool,
    /// Why, and what to do instead.
    why: &'static str,
}

const ROOMS: &[Room] = &[
    Room {
        signs: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code)"],
        places: &["worker/aten/", "worker/c10d/", "worker/slic/src/simd", "worker/data/src/simd"],
        in_tests: false,
        why: "unsafe code lives in worker/aten, worker/c10d and one SIMD module each of worker/slic and worker/data",
    },
    Room {
        signs: &["tokio::spawn(", "task::spawn(", "task::spawn_blocking(", "tokio::task::spawn_local("],
        // r2octl is one command: whoever started it sees its end.
        places: &["common/telemetry/", "r2octl/"],
        in_tests: true,
        why: "start tasks by r2o_telemetry::spawn, which names them and says what a panic does",
    },
    Room {
        signs: &["Instant::now()", "SystemTime::now()", "HashMap", "HashSet"],
        // A place is where it may be: everywhere but the cores.
        places: &["!coordinator/core/", "!worker/core/"],
        in_tests: false,
        why: "cores are pure: time is an argument, maps are ordered",
    },
];

/// All rooms.
pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let sources = files.iter().filter(|file| file.is("rs") && !file.path.starts_with("xtask/src/check/"));
    sources.flat_map(|file| ROOMS.iter().flat_map(|room| visit(room, file))).collect()
}

fn visit(room: &Room, file: &TextFile) -> Vec<Violation> {
    let forbidden = room.places.iter().filter_map(|place| place.strip_prefix('!'));
    let allowed = if room.places[0].starts_with('!') {
        !forbidden.into_iter().any(|place| file.path.starts_with(place))
    } else {
        room.places.iter().any(|place| file.path.starts_with(place))
    };
    if allowed {
        return Vec::new();
    }
    let tests = file.tests_from();
    let excused = |number: usize, line: &str| {
        let comment = line.trim_start().starts_with("//");
        comment || (room.in_tests && number >= tests)
    };
    let code = file.lines().filter(|(number, line)| !excused(*number, line));
    let seen = code
        .filter_map(|(number, line)| room.signs.iter().find(|sign| line.contains(**sign)).map(|sign| (number, sign)));
    seen.map(|(number, sign)| Violation::new(file.at(number), format!("`{sign}`: {}", room.why))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&[TextFile::planted(path, text)]).len()
    }

    #[test]
    fn unsafe_outside_its_rooms_is_found() {
        let code = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(found("worker/engine/src/step.rs", code), 1);
        assert_eq!(found("worker/aten/src/lib.rs", code), 0);
        assert_eq!(found("worker/engine/src/step.rs", "// unsafe { } would be wrong here\n"), 0);
    }

    #[test]
    fn a_nameless_task_is_found_unless_in_tests() {
        let code = "fn f() {\n    tokio::spawn(async {});\n}\n";
        assert_eq!(found("worker/agent/src/session.rs", code), 1);
        assert_eq!(found("tests/kit/src/lib.rs", code), 0);
        let tests = format!("//! A module.\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(found("worker/agent/src/session.rs", &tests), 0);
    }

    #[test]
    fn a_clock_in_a_core_is_found() {
        let code = "fn f() {\n    let now = Instant::now();\n}\n";
        assert_eq!(found("coordinator/core/src/clock.rs", code), 1);
        assert_eq!(found("coordinator/server/src/clock.rs", code), 0);
    }
}
