package VMware::Control::Server;

use strict;
use warnings;

use Scalar::Util ();

use VMware::VmPerl::ConnectParams ();
use VMware::VmPerl::Object ();
use VMware::VmPerl::Server ();

our $VERSION = '1.0.0';
our @ISA = ('VMware::VmPerl::Server');

# new(), new($params) or new($host, $port, $user, $password).
sub new {
    my ($class, @values) = VMware::VmPerl::Object::_arguments(__PACKAGE__, @_);
    my $self = VMware::VmPerl::Object::_new($class);
    my $params = Scalar::Util::blessed($values[0]) && $values[0]->isa('VMware::VmPerl::ConnectParams');
    $self->{params} = $params ? $values[0] : VMware::VmPerl::ConnectParams::new(@values);
    return $self;
}

sub connect {
    my ($self, $params) = @_;
    return $self->SUPER::connect(defined $params ? $params : $self->{params});
}

1;

__END__

=head1 NAME

VMware::Control::Server - VMware::VmPerl::Server under its older name

=head1 DESCRIPTION

C<new()> takes nothing, a L<VMware::VmPerl::ConnectParams>, or host, port, user and password, and keeps it for a
C<connect()> without arguments. Everything else is L<VMware::VmPerl::Server>. See L<VMware::Control>.

=cut
