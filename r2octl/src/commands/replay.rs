//! `replay`: a coordinator's journal, record by record, and what it amounts to after each.

mod beside;
mod view;

use r2o_coordinator_core::{Fold, Record};
use r2o_storage::journal::{self, Found};
use r2o_storage::{Store, open};

use crate::cli::Replay;
use crate::error::{CliError, Exit};
use crate::output::Output;

use beside::Beside;
use view::{DamageView, RecordView};

pub(super) async fn replay(args: Replay, output: &mut Output) -> Result<(), CliError> {
    let store = open(&args.state)?;
    let found = journal::inspect(&store).await?;
    if found.is_empty() {
        return Err(CliError::new(Exit::NotFound, format!("{} has no journal", store.url()))
            .advice("give what the coordinator was started with as --state"));
    }
    let until = args.until.unwrap_or(u64::MAX);
    let (records, broken) = read(&store, found.into_iter().filter(|(number, _)| *number <= until));
    let mut beside = match &args.job {
        Some(job) => beside::of(job, &records, output).await?,
        None => Vec::new(),
    };
    // What happened after the last record that is shown belongs to records that are not.
    let all = args.until.is_none() && broken.is_none();
    beside.reverse();
    let mut shown = 0;
    let mut state = State::new(records.first().is_none_or(|(number, _)| *number == 0));
    for (number, record) in records {
        let whole = state.add(number, &record);
        let about = args.job.as_deref().is_none_or(|job| record.job().is_none_or(|other| other == job));
        if !about {
            continue;
        }
        let at = i64::try_from(record.unix_ms()).unwrap_or(i64::MAX);
        while let Some(earlier) = beside.pop_if(|one| one.unix_ms() <= at) {
            earlier.print(output)?;
        }
        let view = RecordView::new(number, &record, whole.then_some(&state.fold), args.job.as_deref());
        output.item(&view, || view.line())?;
        shown += 1;
    }
    if all {
        beside.into_iter().rev().try_for_each(|later| later.print(output))?;
    }
    if let Some(damage) = broken {
        output.item(&damage, || damage.line())?;
        return Err(CliError::refused(damage.text()).advice(
            "restore the record from a copy: a coordinator starts nothing without it, because what came after follows from it",
        ));
    }
    if let (Some(job), 0) = (&args.job, shown) {
        return Err(CliError::new(Exit::NotFound, format!("the journal under {} has no job `{job}`", store.url()))
            .advice("without --job all records are shown"));
    }
    Ok(())
}

/// The records up to the first that is missing, damaged or of another version.
fn read(store: &Store, found: impl Iterator<Item = (u64, Found)>) -> (Vec<(u64, Record)>, Option<DamageView>) {
    let mut records = Vec::new();
    for (number, found) in found {
        let damage = |problem| Some(DamageView::new(number, journal::url_of(store, number), problem));
        match found {
            Found::Record(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => records.push((number, record)),
                Err(e) => return (records, damage(format!("cannot be understood, it is of another version: {e}"))),
            },
            Found::Damaged { reason } => return (records, damage(format!("is damaged: {reason}"))),
            Found::Missing => return (records, damage("is missing although later ones exist".to_owned())),
        }
    }
    (records, None)
}

/// What the journal amounts to so far.
struct State {
    fold: Fold,
    /// False while the records before the first are gone and no snapshot has repeated them.
    whole: bool,
}

impl State {
    fn new(whole: bool) -> Self {
        Self { fold: Fold::default(), whole }
    }

    /// Takes a record; whether the state after it is known.
    fn add(&mut self, number: u64, record: &Record) -> bool {
        self.whole |= matches!(record, Record::Snapshot { .. });
        if self.whole {
            self.fold.add(number, record.clone());
        }
        self.whole
    }
}

/// Things with a time, in order.
fn in_order(mut items: Vec<Beside>) -> Vec<Beside> {
    items.sort_by_key(Beside::unix_ms);
    items
}
