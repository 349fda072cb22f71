//! All metrics of a process, as text.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry as RawRegistry;

use super::declaration::{Declaration, Kind};
use super::family::{OTHER, Point, Raw, Series};

/// What [`Registry::text`] is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Jobs that have series of their own.
const JOBS: usize = 64;
/// Ended jobs whose counts are still shown.
const ENDED: usize = 16;

/// All metrics of a process.
#[derive(Default)]
pub struct Registry {
    raw: RawRegistry,
    names: Names,
    families: Vec<Box<dyn Family>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("names", &self.names).finish_non_exhaustive()
    }
}

/// [`Series`] of whatever kind.
trait Family: Send + Sync {
    fn declaration(&self) -> &'static Declaration;
    fn points(&self) -> Vec<Point>;
    fn forget(&self, job: &str);
}

impl<M: Raw> Family for Series<M> {
    fn declaration(&self) -> &'static Declaration {
        self.declaration()
    }

    fn points(&self) -> Vec<Point> {
        self.points()
    }

    fn forget(&self, job: &str) {
        self.forget(job);
    }
}

impl Registry {
    /// Adds what is declared.
    pub(super) fn add<M: Raw>(&mut self, declaration: &'static Declaration) -> Series<M> {
        let series = Series::<M>::new(declaration, self.names.clone());
        // The encoder adds the ends of names and sentences itself.
        let name = declaration.name.strip_suffix("_total").unwrap_or(declaration.name);
        self.raw.register(name, declaration.help.trim_end_matches('.'), series.clone());
        self.families.push(Box::new(series.clone()));
        series
    }

    /// All series in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = text::encode(&mut text, &self.raw);
        text
    }

    /// All series now, metric by metric.
    pub fn readings(&self) -> impl Iterator<Item = (&'static Declaration, Vec<Point>)> {
        self.families.iter().map(|family| (family.declaration(), family.points()))
    }

    /// A job has ended: what it is goes at once, what was counted some jobs later.
    pub fn retire(&self, job: &str) {
        let now = self.families.iter().filter(|family| family.declaration().kind == Kind::Gauge);
        now.for_each(|family| family.forget(job));
        if let Some(oldest) = self.names.retire(job) {
            self.families.iter().for_each(|family| family.forget(&oldest));
        }
    }
}

/// The names that are taken as label values.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    jobs: BTreeSet<String>,
    ended: VecDeque<String>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, job: &str) -> String {
        let mut known = self.lock();
        if known.jobs.contains(job) || known.jobs.len() < JOBS && known.jobs.insert(job.to_owned()) {
            job.to_owned()
        } else {
            OTHER.to_owned()
        }
    }

    /// Gives back who makes room.
    fn retire(&self, job: &str) -> Option<String> {
        let mut known = self.lock();
        known.ended.retain(|ended| ended != job);
        if known.jobs.contains(job) {
            known.ended.push_back(job.to_owned());
        }
        let oldest = if known.ended.len() > ENDED { known.ended.pop_front() } else { None };
        oldest.inspect(|oldest| _ = known.jobs.remove(oldest))
    }

    /// A job of a name that has ended works again.
    fn revive(&self, job: &str) {
        self.lock().ended.retain(|ended| ended != job);
    }
}

impl Registry {
    /// A job begins, perhaps under a name that was there before.
    pub fn begin(&self, job: &str) {
        self.names.revive(job);
    }
}
