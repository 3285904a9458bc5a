//! Option groups shared by run, create and update.
