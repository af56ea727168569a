package VMware::VmPerl::Question;

use strict;
use warnings;

our $VERSION = '1.0.0';

# Made by VMware::VmPerl::VM::get_pending_question only: id, text, default choice, choices.
sub _new {
    my ($class, %self) = @_;
    return bless \%self, $class;
}

sub get_id { my ($self) = @_; return $self->{id} }

sub get_text { my ($self) = @_; return $self->{text} }

sub get_choices { my ($self) = @_; return @{ $self->{choices} } }

sub get_default_choice { my ($self) = @_; return $self->{default} }

1;

__END__

=head1 NAME

VMware::VmPerl::Question - what a virtual machine wants to know

=head1 SYNOPSIS

    if ($vm->get_execution_state() == VM_EXECUTION_STATE_STUCK) {
        my $question = $vm->get_pending_question();
        print $question->get_text(), "\n";
        my $number = 0;
        print "  ", $number++, ") $_\n" for $question->get_choices();
        $vm->answer_question($question, 0);
    }

=head1 METHODS

=over

=item get_id()

Its number.

=item get_text()

The question.

=item get_choices()

The list of possible answers; the first is number 0.

=item get_default_choice()

The number of the answer that is suggested. (This project's addition.)

=back

=head1 SEE ALSO

L<VMware::VmPerl>, L<VMware::VmPerl::VM>

=cut
