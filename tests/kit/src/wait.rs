//! Waiting for conditions.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long to leave between two looks at a condition.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Asks `look` again and again until it gives `Some`, and gives that back.
///
/// Errors: `deadline` passes first (named by `what`), or `look` fails.
pub async fn wait_until<T, F, L>(what: &str, deadline: Duration, mut look: L) -> Result<T>
where
    L: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    let mut ticks = tokio::time::interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("waited {:.1} s in vain: {what}", start.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let looks = Cell::new(0);
        let seen = wait_until("three looks", Duration::from_secs(5), || {
            looks.set(looks.get() + 1);
            let count = looks.get();
            async move { Ok((count == 3).then_some(count)) }
        });
        assert_eq!(seen.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_condition_that_never_holds_is_named() {
        let never = wait_until("pigs fly", Duration::from_millis(50), || async { Ok(None::<()>) });
        assert!(never.await.unwrap_err().to_string().contains("pigs fly"));
    }

    #[tokio::test]
    async fn a_failing_look_ends_the_wait() {
        let broken = wait_until("anything", Duration::from_secs(5), || async { bail!("broken") as Result<Option<()>> });
        assert_eq!(broken.await.unwrap_err().to_string(), "broken");
    }
}
