"""Which DNN each GPU runs, and which GPU serves each client."""
