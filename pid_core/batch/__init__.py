"""Many pictures: a manifest's rows, each decoded once and kept, whatever fails or dies meanwhile."""
