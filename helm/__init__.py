"""How the service comes into a cluster: the chart `whispr-scheduling`, and what is made for it from the code.

The chart may know the image's commands, the settings' names and the mesh. It must not name a target or a principal's
RPCs: those stand in the target table and in the access policy, and `helm/generate.py` carries them over.
"""
