"""Engines on a Ray cluster. Imported only where the settings say `executor: ray`. No torch.

    daemon ── executor.py, remote_engine.py: an Executor and its Engines; import no Ray
      │ socket, messages.py
    driver ── driver_main.py, driver.py, engine_actor.py, model_transfer.py, nodes.py: a process
      │ Ray   of its own, which alone imports Ray
    agent ─── bootstrap.py, node_agent.py, model_files.py: an actor on a node, with model files
      │ socket
    engine ── a ChildEngine's process, as on one machine

The driver is a process of its own, because Ray ends the process that it was started in when the
head of the cluster stays away for a minute ("Failed to connect to GCS within 60 seconds … The
program will terminate"), and it takes the signals of that process.
"""
