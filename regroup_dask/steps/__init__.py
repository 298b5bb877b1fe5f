"""The steps of a run on the driver: each plans units of work, has them run, and puts the results together."""
