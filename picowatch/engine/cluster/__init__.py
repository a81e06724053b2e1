"""Engines on a Ray cluster. Imported only where the settings say `executor: ray`. No torch.

    daemon ── executor.py, placement.py, remote_engine.py, model_transfer.py: an Executor and its
      │       Engines, in driver.py the way to the driver; import no Ray
      │ socket: calls by name, and their answers
    driver ── driver_main.py: a process of its own, which alone imports Ray
      │ Ray
    agent ─── bootstrap.py, node_agent.py, node_models.py: an actor on a node, with model files
      │ socket
    engine ── a ChildEngine's process, as on one machine

The driver is a process of its own, because Ray ends the process that it was started in when the
head of the cluster stays away for a minute ("Failed to connect to GCS within 60 seconds … The
program will terminate"), and it takes the signals of that process.
"""
