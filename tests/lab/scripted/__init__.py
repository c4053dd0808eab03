"""A cloud that is played: Keystone, Nova, Cinder and Glance as far as the service asks them, over real HTTP.

It shows what real services take minutes for: hosts that die and come back with what was queued for them, services that
are away, refusals in all forms. That it answers as they do is what the tests in the lab of real services are for.
"""
