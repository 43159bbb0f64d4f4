"""One protocol for all bridges: what the source may read, what the target is asked, what a bridge is compared with. See docs/bridges.md."""
