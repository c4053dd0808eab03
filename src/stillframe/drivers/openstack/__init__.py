"""Drivers for OpenStack: Nova runs the instances, Cinder holds the volumes."""
