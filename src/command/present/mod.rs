//! Tables, templates, JSON and progress: the only place that writes to standard output.
