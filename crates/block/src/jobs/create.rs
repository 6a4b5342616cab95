//! Making an image.

use super::{Job, Work};
use crate::error::Result;

/// The job: whatever is to be done, on a thread of its own.
pub struct Create<F: FnMut() -> Result<()> + Send>(pub F);

impl<F: FnMut() -> Result<()> + Send> Work for Create<F> {
    fn run(&mut self, job: &Job) -> Result<()> {
        job.progress(0, 1);
        (self.0)()?;
        job.progress(1, 1);
        Ok(())
    }
}
