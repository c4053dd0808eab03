"""The filters for Nova's and Cinder's pipelines, with PasteDeploy's pipelines around them."""
