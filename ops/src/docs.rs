//! Reference pages and the fuzz dictionary, rendered from the table.
