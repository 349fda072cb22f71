//! The state machine.

use std::collections::VecDeque;

use r2o_types::TraceContext;

use crate::event::{Assignment, Command, Event, ExitReason, Failure, Held, Ticket};

/// Where the worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No session stream; what was granted before it broke is still computed.
    Disconnected,
    /// Connected, without an assignment.
    Idle,
    /// Building engine and process group.
    Forming,
    /// Has a group and takes work in order.
    Training,
    /// The generation failed here; waits to be released or assigned anew.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    Step(Ticket),
    Checkpoint(u64, Option<TraceContext>),
}

#[derive(Debug)]
struct Membership {
    assignment: Assignment,
    queue: VecDeque<Work>,
    /// Forming counts as work: the engine thread is busy with this generation.
    busy: bool,
    formed: bool,
    failed: bool,
    /// The stream on which it was assigned is gone: the coordinator does not know of it any more.
    orphan: bool,
    /// Committed steps of the state in the engine.
    step: u64,
}

/// The worker's lifecycle. See the crate documentation.
#[derive(Debug, Default)]
pub struct Core {
    connected: bool,
    draining: bool,
    exited: bool,
    membership: Option<Membership>,
    held: Option<Held>,
}

impl Core {
    /// A worker that has not connected yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the worker stands now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.membership {
            _ if !self.connected => Phase::Disconnected,
            None => Phase::Idle,
            Some(m) if m.failed => Phase::Failed,
            Some(m) if m.formed => Phase::Training,
            Some(_) => Phase::Forming,
        }
    }

    /// The state that this worker keeps, for its next hello.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Takes one event and says what to do, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        if self.exited {
            return Vec::new();
        }
        let mut commands = Vec::new();
        match event {
            Event::Connected => self.on_connected(&mut commands),
            Event::Disconnected => self.on_disconnected(&mut commands),
            Event::Refused(reason) => self.exit(ExitReason::Refused(reason), &mut commands),
            Event::Assigned(assignment) => self.on_assigned(assignment, &mut commands),
            Event::Granted { generation, ticket } => self.enqueue(generation, Work::Step(ticket)),
            Event::CheckpointAsked { generation, step, trace } => {
                self.enqueue(generation, Work::Checkpoint(step, trace));
            }
            Event::Released { job, generation, keep } => self.on_released(&job, generation, keep, &mut commands),
            Event::PrepareAsked { job, spec } => self.on_prepare_asked(job, spec, &mut commands),
            Event::Prepared { job } => {
                if self.connected && self.membership.is_none() && !self.draining {
                    commands.push(Command::SendPrepared { job });
                }
            }
            Event::Formed { generation, step } => self.on_formed(generation, step, &mut commands),
            Event::WorkDone { generation } => self.on_done(generation),
            Event::WorkFailed { generation, step, failure } => self.on_failed(generation, step, failure, &mut commands),
            Event::Drain { reason } => self.on_drain(reason, &mut commands),
        }
        self.advance(&mut commands);
        commands
    }

    /// Checks what must hold in every state; a broken invariant is a defect of this crate.
    ///
    /// # Errors
    /// Names the invariant that does not hold.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        if let Some(m) = &self.membership {
            if !self.connected && !m.orphan {
                return Err("a generation without a stream is an orphan");
            }
            if m.failed && m.busy {
                return Err("a failed generation computes nothing");
            }
            if !m.formed && !m.failed && !m.busy {
                return Err("a generation that is not formed is being formed");
            }
        }
        Ok(())
    }

    fn current(&mut self, generation: u64) -> Option<&mut Membership> {
        self.membership.as_mut().filter(|m| m.assignment.generation == generation)
    }

    fn enqueue(&mut self, generation: u64, work: Work) {
        if let Some(m) = self.current(generation).filter(|m| !m.failed) {
            m.queue.push_back(work);
        }
    }

    fn on_connected(&mut self, commands: &mut Vec<Command>) {
        self.connected = true;
        if self.membership.as_ref().is_some_and(|m| m.orphan && (m.failed || !m.formed)) {
            self.leave(true, commands);
        }
    }

    /// Only a worker that is free in the coordinator's eyes is asked.
    fn on_prepare_asked(&mut self, job: String, spec: String, commands: &mut Vec<Command>) {
        if self.membership.as_ref().is_some_and(|m| m.orphan) {
            self.leave(true, commands);
        }
        if self.membership.is_none() && !self.draining {
            // There is room for one job's engine.
            self.held.take_if(|held| held.job != job);
            commands.push(Command::Prepare { job, spec });
        }
    }

    fn on_disconnected(&mut self, commands: &mut Vec<Command>) {
        self.connected = false;
        // What is granted is computed all the same: the coordinator may be back soon, and learns of it then.
        if let Some(m) = &mut self.membership {
            m.orphan = true;
        }
        if !self.draining {
            commands.push(Command::Reconnect);
        }
    }

    fn on_released(&mut self, job: &str, generation: u64, keep: bool, commands: &mut Vec<Command>) {
        if self.current(generation).is_some() {
            self.leave(keep, commands);
        } else if !keep && self.membership.is_none() {
            self.held.take_if(|held| held.job == job && held.generation <= generation);
            commands.push(Command::Discard { generation });
        }
    }

    fn on_assigned(&mut self, assignment: Assignment, commands: &mut Vec<Command>) {
        if !self.connected || self.membership.as_ref().is_some_and(|m| m.assignment.generation >= assignment.generation)
        {
            return;
        }
        let same = self.membership.as_ref().is_none_or(|m| m.assignment.job == assignment.job);
        self.leave(same, commands);
        if self.draining {
            return;
        }
        if self.held.as_ref().is_some_and(|held| held.job != assignment.job) {
            self.held = None;
        }
        commands.push(Command::Form(assignment.clone()));
        self.membership = Some(Membership {
            step: assignment.step,
            assignment,
            queue: VecDeque::new(),
            busy: true,
            formed: false,
            failed: false,
            orphan: false,
        });
    }

    fn on_formed(&mut self, generation: u64, step: u64, commands: &mut Vec<Command>) {
        if let Some(m) = self.current(generation).filter(|m| !m.formed && !m.failed) {
            m.formed = true;
            m.busy = false;
            m.step = step;
            let job = m.assignment.job.clone();
            self.held = Some(Held { job: job.clone(), generation, step });
            commands.push(Command::SendReady { job, generation, step });
        }
    }

    fn on_done(&mut self, generation: u64) {
        if let Some(m) = self.current(generation).filter(|m| m.formed && m.busy) {
            m.busy = false;
            if let Some(Work::Step(ticket)) = m.queue.pop_front() {
                m.step = ticket.step + 1;
                if let Some(held) = &mut self.held {
                    held.step = ticket.step + 1;
                }
            }
        }
    }

    fn on_failed(&mut self, generation: u64, step: u64, failure: Failure, commands: &mut Vec<Command>) {
        if let Some(m) = self.current(generation).filter(|m| !m.failed) {
            m.failed = true;
            m.busy = false;
            m.queue.clear();
            let job = m.assignment.job.clone();
            let orphan = m.orphan;
            // Peers may hang in the same collective: closing our side of it wakes them too.
            commands.push(Command::Abort { generation });
            if !orphan {
                commands.push(Command::SendFailure { job, generation, step, failure });
            }
        }
    }

    fn on_drain(&mut self, reason: String, commands: &mut Vec<Command>) {
        if self.draining {
            self.exit(ExitReason::Forced, commands);
            return;
        }
        self.draining = true;
        if self.connected && self.membership.is_some() {
            commands.push(Command::SendDraining { reason });
        }
    }

    /// Leaves the current generation, whatever it is doing.
    fn leave(&mut self, keep: bool, commands: &mut Vec<Command>) {
        if let Some(m) = self.membership.take() {
            let generation = m.assignment.generation;
            if m.busy {
                commands.push(Command::Abort { generation });
            }
            commands.push(if keep { Command::Park { generation } } else { Command::Discard { generation } });
            if !keep {
                self.held = None;
            }
        }
    }

    fn exit(&mut self, reason: ExitReason, commands: &mut Vec<Command>) {
        self.exited = true;
        commands.push(Command::Exit(reason));
    }

    /// Starts the next piece of work, or leaves when draining and nothing is in flight.
    fn advance(&mut self, commands: &mut Vec<Command>) {
        if self.exited {
            return;
        }
        // The coordinator releases those that drain. Without it nobody does: the work in flight is finished then.
        let waits = |m: &Membership| !m.orphan || (m.busy && m.formed);
        if self.draining && !self.membership.as_ref().is_some_and(waits) {
            self.leave(true, commands);
            self.exit(ExitReason::Drained, commands);
            return;
        }
        let Some(m) = self.membership.as_mut().filter(|m| m.formed && !m.busy && !m.failed) else { return };
        let generation = m.assignment.generation;
        // Work out of order cannot be applied: state and ticket would not belong together.
        let Some(&work) = m.queue.front() else { return };
        let expected = match work {
            Work::Step(ticket) => ticket.step,
            Work::Checkpoint(step, _) => step,
        };
        if expected != m.step {
            let failure =
                Failure::Collective(format!("granted work for step {expected}, but the state holds {} steps", m.step));
            let step = m.step;
            self.on_failed(generation, step, failure, commands);
            return;
        }
        m.busy = true;
        commands.push(match work {
            Work::Step(ticket) => Command::Compute { generation, ticket },
            Work::Checkpoint(step, trace) => Command::CopyOut { generation, step, trace },
        });
    }
}
