//! Health checks as the loop sees them: what follows from a result, and other checks for a container that runs.

use super::{House, Process};
use crate::model::health::OnFailure;
use crate::supervisor::health::{Health, Verdict};
use crate::supervisor::message::Reply;
use anyhow::Result;

impl House {
    /// A check has ended.
    pub(super) fn heed(&mut self, verdict: Verdict, process: Option<&dyn Process>) {
        for client in self.clients.iter_mut().filter(|client| client.waits_for_check) {
            client.waits_for_check = false;
            client.tell(&Reply::Checked { good: verdict.good }, None);
        }
        self.show_health();
        if self.notify_healthy && self.status.get().health == "healthy" {
            self.notify_healthy = false;
            crate::host::notify::notify("READY=1");
        }
        match (verdict.action, process) {
            (OnFailure::Kill, Some(process)) => self.kill(process),
            (OnFailure::Stop, Some(_)) => self.stop(self.stop_default, process),
            (OnFailure::Restart, Some(_)) => {
                self.stop(self.stop_default, process);
                self.stopped_by_user = false;
                self.restart_wanted = true;
            }
            _ => {}
        }
    }

    /// The record says other checks than before: they begin now, and earlier results are kept.
    pub(super) fn renew_health(&mut self) -> Result<()> {
        let record = self.status.record()?;
        let log = self.health.take().map(|health| health.log).unwrap_or_default();
        self.health = Health::new(&record.spec, self.status.layout(), &record.id);
        if let Some(health) = &mut self.health {
            health.log = log;
        }
        self.show_health();
        Ok(())
    }

    fn show_health(&mut self) {
        let (word, failing, log) = match &self.health {
            Some(health) => (health.status, health.failing, health.log.as_slice()),
            None => ("", 0, [].as_slice()),
        };
        self.status.change(|status| {
            word.clone_into(&mut status.health);
            status.health_failing = failing;
            status.health_log = log.to_vec();
        });
    }
}
