//! Which containers `pause`, `unpause`, `stop` and `restart` are about.

use crate::engine::select::Wish;

#[derive(clap::Args, Debug, Clone, Default)]
pub struct SelectionFlags {
    /// All containers the command can act on, instead of named ones
    #[arg(short, long)]
    all: bool,
    /// Read the container ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<String>,
    /// Only containers that match (KEY=VALUE, as in `ps`)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl SelectionFlags {
    /// What was typed, for `engine::select`; none that is not there is passed over.
    pub fn wish(self) -> Wish {
        Wish {
            names: self.containers,
            all: self.all,
            latest: self.latest,
            filters: self.filter,
            cidfiles: self.cidfile,
            ignore: false,
        }
    }
}
