"""Engines on a Ray cluster. Imported only where the settings say `executor: ray`. No torch.

    daemon ── executor.py, far_engine.py: an Executor and its Engines; import no Ray
      │ socket, wire.py
    driver ── driver_main.py, driver.py, posting.py, courier.py: a process that alone imports Ray
      │ Ray
    host ──── host.py, workplace.py, store.py: an actor on a node, thin, with its model files
      │ socket
    engine ── a ChildEngine's process, as on one machine

The driver is a process of its own, because Ray ends the process that it was started in when the
head of the cluster stays away for a minute ("Failed to connect to GCS within 60 seconds … The
program will terminate"), and it takes the signals of that process.
"""
