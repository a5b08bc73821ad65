"""From a trace and its diagnosis to something a person looks at."""
